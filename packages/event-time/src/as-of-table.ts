/** What was valid before the newest version, in the order of its time. */
interface Earlier<V> {
  fromMs: number[];
  values: (V | null)[];
}

/** The newest version lies in the entry itself: most keys have no other, and each array more is a fetch from memory in a look-up. */
class Versions<V> {
  newestMs: number;
  newest: V | null;
  earlier: Earlier<V> | null = null;
  constructor(newestMs: number, newest: V | null) {
    this.newestMs = newestMs;
    this.newest = newest;
  }
}

/**
 * Versions of values by key, looked up as of a moment: the item or SID that was valid when a request was made.
 * A later record with the same validFromMs replaces the earlier one.
 */
export class AsOfTable<V, K = string> {
  readonly #versions = new Map<K, Versions<V>>();

  /** Adds a version; null marks the end of the key's validity from then on. */
  put(key: K, validFromMs: number, value: V | null): void {
    const entry = this.#versions.get(key);
    if (!entry) {
      this.#versions.set(key, new Versions(validFromMs, value));
      return;
    }
    if (validFromMs === entry.newestMs) {
      entry.newest = value;
      return;
    }
    entry.earlier ??= { fromMs: [], values: [] };
    if (validFromMs < entry.newestMs) {
      putEarlier(entry.earlier, validFromMs, value);
      return;
    }
    entry.earlier.fromMs.push(entry.newestMs);
    entry.earlier.values.push(entry.newest);
    entry.newestMs = validFromMs;
    entry.newest = value;
  }

  /** The value with the latest validFromMs <= timeMs, or null. */
  asOf(key: K, timeMs: number): V | null {
    const entry = this.#versions.get(key);
    if (!entry) return null;
    if (entry.newestMs <= timeMs) return entry.newest;
    const { earlier } = entry;
    const at = earlier ? lastAtOrBefore(earlier.fromMs, timeMs) : -1;
    return at < 0 ? null : earlier!.values[at]!;
  }

  /** The newest value, or null. */
  newest(key: K): V | null {
    return this.#versions.get(key)?.newest ?? null;
  }

  /** Drops versions that no look-up at or after timeMs can see. */
  forgetBefore(timeMs: number): void {
    for (const [key, entry] of this.#versions) {
      if (entry.newestMs <= timeMs) {
        entry.earlier = null;
        if (entry.newest === null) this.#versions.delete(key);
        continue;
      }
      const { earlier } = entry;
      const at = earlier ? lastAtOrBefore(earlier.fromMs, timeMs) : -1;
      if (at <= 0) continue;
      earlier!.fromMs.splice(0, at);
      earlier!.values.splice(0, at);
    }
  }

  get size(): number {
    return this.#versions.size;
  }
  keys(): IterableIterator<K> {
    return this.#versions.keys();
  }
}

function putEarlier<V>({ fromMs, values }: Earlier<V>, validFromMs: number, value: V | null): void {
  const at = lastAtOrBefore(fromMs, validFromMs);
  if (at >= 0 && fromMs[at] === validFromMs) {
    values[at] = value;
    return;
  }
  fromMs.splice(at + 1, 0, validFromMs);
  values.splice(at + 1, 0, value);
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
