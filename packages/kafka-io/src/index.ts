export { kafkaSettings } from './access.ts';
export { connectKafka } from './connect.ts';
export { murmur2, partitionOf } from './murmur2.ts';
export * from './ports.ts';
export { externalTopic } from './topic-names.ts';
