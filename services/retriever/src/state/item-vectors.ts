/**
 * f_item of the items that searches found lately, for one policy: the tower runs for what is new or has changed, the least
 * recently wanted go when it is full.
 */
import type { ItemTensors } from '@onemall/features';

/** Vectors kept; 64 float32 and their keys are about 0.5 KB each. */
const MOST_KEPT = 100_000;

interface Kept {
  tensors: ItemTensors;
  vector: Float32Array;
}

export class ItemVectors {
  readonly #embed: (items: readonly ItemTensors[], signal?: AbortSignal) => Promise<Float32Array>;
  readonly #mostKept: number;
  /** In the order of their last use. */
  readonly #kept = new Map<string, Kept>();

  /** @param embed float32 [items, D] of an item tower */
  constructor(
    embed: (items: readonly ItemTensors[], signal?: AbortSignal) => Promise<Float32Array>,
    mostKept = MOST_KEPT,
  ) {
    this.#embed = embed;
    this.#mostKept = mostKept;
  }

  /** @returns a vector [D] for each item, in their order */
  async of(
    items: readonly { itemId: string; tensors: ItemTensors }[],
    signal?: AbortSignal,
  ): Promise<Float32Array[]> {
    const vectors = items.map(({ itemId, tensors }) => this.#recall(itemId, tensors));
    const missing = items.flatMap((item, at) => (vectors[at] ? [] : [{ ...item, at }]));
    if (missing.length > 0) {
      const fresh = await this.#embed(
        missing.map(({ tensors }) => tensors),
        signal,
      );
      const dim = fresh.length / missing.length;
      missing.forEach(({ itemId, tensors, at }, i) => {
        const vector = fresh.slice(i * dim, (i + 1) * dim);
        this.#kept.delete(itemId);
        this.#kept.set(itemId, { tensors, vector });
        vectors[at] = vector;
      });
      this.#shrink();
    }
    return vectors as Float32Array[];
  }

  #recall(itemId: string, tensors: ItemTensors): Float32Array | undefined {
    const kept = this.#kept.get(itemId);
    if (!kept || !sameTensors(kept.tensors, tensors)) return undefined;
    this.#kept.delete(itemId);
    this.#kept.set(itemId, kept);
    return kept.vector;
  }

  #shrink(): void {
    for (const itemId of this.#kept.keys()) {
      if (this.#kept.size <= this.#mostKept) return;
      this.#kept.delete(itemId);
    }
  }

  get size(): number {
    return this.#kept.size;
  }
}

const sameTensors = (a: ItemTensors, b: ItemTensors): boolean =>
  a.scenario === b.scenario && sameNumbers(a.hashes, b.hashes) && sameNumbers(a.codes, b.codes);
const sameNumbers = (a: Int32Array, b: Int32Array): boolean =>
  a.length === b.length && a.every((x, i) => x === b[i]);
