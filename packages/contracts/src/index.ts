export * from './codec.ts';
export type * from './generated/types.ts';
export { fullSchema, schemaNames } from './schemas.ts';
export * from './topics.ts';
export * from './validate.ts';
