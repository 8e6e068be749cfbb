/**
 * What each user did, for point-in-time histories: "the latest H of a kind before a moment". Per user and kind every
 * event from a cutoff on is kept and H older ones, so that each exposure that is still open finds its H events however
 * active the user has been since.
 */
export type HistoryKind = 'exposures' | 'clicks' | 'buys';

export interface HistoryEntry {
  /** exposureId or actionId; settles equal times and drops copies. */
  id: string;
  itemId: string;
  timeMs: number;
  /** The exposure that the event is or names; null where an action names none. */
  exposureId: string | null;
  /** Of an exposure; null for actions. */
  requestId: string | null;
}

interface Ring {
  /** Ascending by (timeMs, id). */
  entries: HistoryEntry[];
  /** Length at which pruning is worth a look. */
  pruneAtLength: number;
}

type UserRings = Record<HistoryKind, Ring>;

export class UserHistories {
  readonly #users = new Map<string, UserRings>();
  readonly #length: number;
  #numEntries = 0;

  /** @param length H, the events of each kind that a look-up gives at most */
  constructor(length: number) {
    this.#length = length;
  }

  get numUsers(): number {
    return this.#users.size;
  }
  get numEntries(): number {
    return this.#numEntries;
  }

  /**
   * Adds an event; a copy changes nothing.
   * @param cutoffMs no look-up before this moment will come for this user; asked only when there is much to prune
   */
  add(userId: string, kind: HistoryKind, entry: HistoryEntry, cutoffMs: () => number): void {
    let user = this.#users.get(userId);
    if (!user) {
      const ring = (): Ring => ({ entries: [], pruneAtLength: 2 * this.#length + 8 });
      user = { exposures: ring(), clicks: ring(), buys: ring() };
      this.#users.set(userId, user);
    }
    const ring = user[kind];
    const { entries } = ring;
    let at = entries.length;
    while (at > 0 && after(entries[at - 1]!, entry)) at--;
    const previous = entries[at - 1];
    if (previous && previous.timeMs === entry.timeMs && previous.id === entry.id) return;
    if (at === entries.length) entries.push(entry);
    else entries.splice(at, 0, entry);
    this.#numEntries++;
    if (entries.length >= ring.pruneAtLength) this.#prune(ring, cutoffMs());
  }

  #prune(ring: Ring, cutoffMs: number): void {
    const numBefore = countBefore(ring.entries, cutoffMs);
    const excess = numBefore - this.#length;
    if (excess > 0) {
      ring.entries.splice(0, excess);
      this.#numEntries -= excess;
    }
    ring.pruneAtLength = 2 * Math.max(this.#length, ring.entries.length) + 8;
  }

  /** The latest events with timeMs < beforeMs, newest first, at most H, without those that `skip` names. */
  latest(
    userId: string,
    kind: HistoryKind,
    beforeMs: number,
    skip: (entry: HistoryEntry) => boolean = () => false,
  ): HistoryEntry[] {
    const entries = this.#users.get(userId)?.[kind].entries;
    const found: HistoryEntry[] = [];
    if (!entries) return found;
    for (let at = countBefore(entries, beforeMs) - 1; at >= 0 && found.length < this.#length; at--) {
      const entry = entries[at]!;
      if (!skip(entry)) found.push(entry);
    }
    return found;
  }

  /** Everything kept, for a snapshot. */
  *all(): IterableIterator<[userId: string, kind: HistoryKind, entries: readonly HistoryEntry[]]> {
    for (const [userId, user] of this.#users)
      for (const kind of ['exposures', 'clicks', 'buys'] as const)
        if (user[kind].entries.length > 0) yield [userId, kind, user[kind].entries];
  }
}

const after = (a: HistoryEntry, b: HistoryEntry): boolean =>
  a.timeMs !== b.timeMs ? a.timeMs > b.timeMs : a.id > b.id;

/** How many entries of an ascending list have timeMs < beforeMs. */
function countBefore(entries: readonly HistoryEntry[], beforeMs: number): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entries[middle]!.timeMs < beforeMs) low = middle + 1;
    else high = middle;
  }
  return low;
}
