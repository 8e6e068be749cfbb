export * from './policy-ports.ts';
