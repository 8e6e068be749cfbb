export * from './hash.ts';
export * from './item-tensors.ts';
export * from './ranker-features.ts';
export * from './ranker-item.ts';
export * from './request-tensors.ts';
export * from './sid-layout.ts';
export * from './tensors.ts';
