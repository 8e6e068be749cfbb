export { z } from 'zod';
export * from './artifact-store.ts';
export * from './clock.ts';
export * from './config.ts';
export * from './lifecycle.ts';
export * from './random.ts';
export * from './service.ts';
export * from './stage-meter.ts';
