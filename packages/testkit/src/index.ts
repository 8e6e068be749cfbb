export { type WaitOptions, waitFor } from '@onemall/stack';
export * from './spawn-service.ts';
export * from './test-stack.ts';
