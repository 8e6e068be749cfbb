import { createHash } from 'node:crypto';
import type { Vectors } from '@onemall/quantization';
import type { TextEncoder } from './text-encoder.ts';

/**
 * Encodes each text once: vectors are kept by the hash of encoder and text, the longest unused leave first. An item whose
 * price changes costs nothing.
 */
export class CachedTextEncoder implements TextEncoder {
  readonly #encoder: TextEncoder;
  readonly #maxEntries: number;
  /** In order of use. */
  readonly #vectors = new Map<string, Float32Array>();
  hits = 0;
  misses = 0;

  constructor(encoder: TextEncoder, maxEntries: number) {
    this.#encoder = encoder;
    this.#maxEntries = maxEntries;
  }
  get name(): string {
    return this.#encoder.name;
  }
  get dim(): number {
    return this.#encoder.dim;
  }

  async encode(texts: readonly string[]): Promise<Vectors> {
    const { dim } = this;
    const data = new Float32Array(texts.length * dim);
    const missing = new Map<string, { text: string; rows: number[] }>();
    for (const [row, text] of texts.entries()) {
      const key = createHash('sha256').update(`${this.name}\n${text}`).digest('base64');
      const known = this.#vectors.get(key);
      const waiting = missing.get(key);
      if (known) {
        this.#vectors.delete(key);
        this.#vectors.set(key, known);
        data.set(known, row * dim);
      } else if (waiting) waiting.rows.push(row);
      else missing.set(key, { text, rows: [row] });
    }
    this.misses += missing.size;
    this.hits += texts.length - missing.size;
    const fresh = [...missing.values()];
    const encoded = await this.#encoder.encode(fresh.map(({ text }) => text));
    for (const [i, key] of [...missing.keys()].entries()) {
      const vector = encoded.data.slice(i * dim, (i + 1) * dim);
      for (const row of fresh[i]!.rows) data.set(vector, row * dim);
      this.#vectors.set(key, vector);
    }
    for (const key of this.#vectors.keys()) {
      if (this.#vectors.size <= this.#maxEntries) break;
      this.#vectors.delete(key);
    }
    return { data, numVectors: texts.length, dim };
  }

  close(): Promise<void> {
    this.#vectors.clear();
    return this.#encoder.close();
  }
}
