export * from './avro-reader.ts';
export * from './codec.ts';
export type * from './generated/types.ts';
export * from './sample-reader.ts';
export { fullSchema, schemaNames } from './schemas.ts';
export * from './topics.ts';
export * from './validate.ts';
