export { type WaitOptions, waitFor } from '@onemall/stack';
export type { ApiName } from './kafka-frames.ts';
export { type Hold, KafkaProxy } from './kafka-proxy.ts';
export * from './spawn-service.ts';
export * from './test-namespace.ts';
export * from './test-stack.ts';
