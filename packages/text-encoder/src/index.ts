export * from './cached-encoder.ts';
export * from './encoder-folder.ts';
export * from './item-pairs-recall.ts';
export * from './ngram-encoder.ts';
export * from './onnx-encoder.ts';
export * from './onnx-image-encoder.ts';
export * from './picture-folder.ts';
export * from './text-encoder.ts';
