import { stackVectors, textEmbedding, type Vectors } from '@onemall/quantization';
import type { TextEncoder } from './text-encoder.ts';

/** Hashed character n-grams through a fixed random projection: needs no weights and reads any language. */
export class NgramEncoder implements TextEncoder {
  readonly name: string;
  readonly dim: number;

  constructor(dim: number) {
    this.dim = dim;
    this.name = `ngrams-${dim}`;
  }
  encode(texts: readonly string[]): Promise<Vectors> {
    if (texts.length === 0)
      return Promise.resolve({ data: new Float32Array(0), numVectors: 0, dim: this.dim });
    const rows = texts.map((title) => textEmbedding({ itemId: '', title, category: '', tags: [] }, this.dim));
    return Promise.resolve(stackVectors(rows));
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}
