export * from './as-of-table.ts';
