export * from './as-of-table.ts';
export * from './attribution.ts';
export * from './labels.ts';
export * from './replay-marks.ts';
export * from './watermark.ts';
