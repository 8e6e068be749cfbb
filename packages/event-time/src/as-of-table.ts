/**
 * Versions of values by key, looked up as of a moment: the item or SID that was valid when a request was made.
 * A later record with the same validFromMs replaces the earlier one.
 */
export class AsOfTable<V, K = string> {
  readonly #versions = new Map<K, { validFromMs: number[]; values: (V | null)[] }>();

  /** Adds a version; null marks the end of the key's validity from then on. */
  put(key: K, validFromMs: number, value: V | null): void {
    let entry = this.#versions.get(key);
    if (!entry) {
      entry = { validFromMs: [], values: [] };
      this.#versions.set(key, entry);
    }
    const at = lastAtOrBefore(entry.validFromMs, validFromMs);
    if (at >= 0 && entry.validFromMs[at] === validFromMs) {
      entry.values[at] = value;
      return;
    }
    entry.validFromMs.splice(at + 1, 0, validFromMs);
    entry.values.splice(at + 1, 0, value);
  }

  /** The value with the latest validFromMs <= timeMs, or null. */
  asOf(key: K, timeMs: number): V | null {
    const entry = this.#versions.get(key);
    if (!entry) return null;
    const at = lastAtOrBefore(entry.validFromMs, timeMs);
    return at < 0 ? null : entry.values[at]!;
  }

  /** Forgets all versions of a key. */
  remove(key: K): void {
    this.#versions.delete(key);
  }

  /** The newest value, or null. */
  newest(key: K): V | null {
    return this.#versions.get(key)?.values.at(-1) ?? null;
  }

  /** Drops versions that no look-up at or after timeMs can see. */
  forgetBefore(timeMs: number): void {
    for (const [key, entry] of this.#versions) {
      const at = lastAtOrBefore(entry.validFromMs, timeMs);
      if (at > 0) {
        entry.validFromMs.splice(0, at);
        entry.values.splice(0, at);
      }
      if (entry.values.length === 1 && entry.values[0] === null && entry.validFromMs[0]! <= timeMs)
        this.#versions.delete(key);
    }
  }

  get size(): number {
    return this.#versions.size;
  }
  keys(): IterableIterator<K> {
    return this.#versions.keys();
  }
}

/** Index of the last element <= x in an ascending list, or -1. */
function lastAtOrBefore(ascending: readonly number[], x: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! <= x) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
