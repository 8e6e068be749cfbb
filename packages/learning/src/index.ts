export * from './models/presets.ts';
export * from './policy-ports.ts';
export * from './trainer-ports.ts';
