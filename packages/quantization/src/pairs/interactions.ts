/** What users did, kept in bounded memory: the input of the pairs. */

/** A click on an item, or a view of a short video. */
export interface Interaction {
  itemId: string;
  /** When it began. */
  timeMs: number;
  kind: 'click' | 'view';
  /** Of a view. */
  watchMs: number;
}

export interface InteractionLimits {
  /** Above this a random half of the users is left out, again and again: which ones depends on their ids alone. */
  maxUsers: number;
  /** Newest interactions kept per user. */
  maxPerUser: number;
}

export class Interactions {
  readonly #byUser = new Map<string, { hash: number; events: Interaction[] }>();
  readonly #limits: InteractionLimits;
  readonly #hash: (userId: string) => number;
  #share = 1;
  #usersLeftOut = 0;
  #eventsLeftOut = 0;

  /** @param hash of a user id, uniform in [0, 1) */
  constructor(limits: InteractionLimits, hash: (userId: string) => number) {
    this.#limits = limits;
    this.#hash = hash;
  }

  add(userId: string, event: Interaction): void {
    const { maxUsers, maxPerUser } = this.#limits;
    let user = this.#byUser.get(userId);
    if (!user) {
      const hash = this.#hash(userId);
      if (hash >= this.#share) {
        this.#eventsLeftOut++;
        return;
      }
      user = { hash, events: [] };
      this.#byUser.set(userId, user);
    }
    const { events } = user;
    events.push(event);
    // Twice the limit before it is cut, so that cutting costs little per event.
    if (events.length >= 2 * maxPerUser) this.#eventsLeftOut += cut(events, maxPerUser);
    if (this.#byUser.size > maxUsers) this.#halve();
  }

  /** Share of the users that were looked at, and what was left out for want of room. */
  get coverage(): { userShare: number; usersLeftOut: number; eventsLeftOut: number } {
    return { userShare: this.#share, usersLeftOut: this.#usersLeftOut, eventsLeftOut: this.#eventsLeftOut };
  }
  get numUsers(): number {
    return this.#byUser.size;
  }

  /** The interactions of each user, oldest first; users in order of their ids, so that the order of the log does not matter. */
  *users(): Generator<Interaction[]> {
    for (const userId of [...this.#byUser.keys()].sort()) {
      const { events } = this.#byUser.get(userId)!;
      cut(events, this.#limits.maxPerUser);
      yield events;
    }
  }

  #halve(): void {
    this.#share /= 2;
    for (const [userId, { hash, events }] of this.#byUser)
      if (hash >= this.#share) {
        this.#byUser.delete(userId);
        this.#usersLeftOut++;
        this.#eventsLeftOut += events.length;
      }
  }
}

/** Sorts by time and drops the oldest beyond `max`. @returns how many were dropped */
function cut(events: Interaction[], max: number): number {
  events.sort((a, b) => a.timeMs - b.timeMs || (a.itemId < b.itemId ? -1 : 1));
  const surplus = Math.max(0, events.length - max);
  events.splice(0, surplus);
  return surplus;
}

/**
 * Different items of each user as indices, for Swing; users with a single item say nothing and are left out.
 * @param indexOf index of an item that counts, undefined for others
 */
export function clickBaskets(
  users: Iterable<readonly Interaction[]>,
  indexOf: (itemId: string) => number | undefined,
): Int32Array[] {
  const baskets: Int32Array[] = [];
  for (const events of users) {
    const items = new Set<number>();
    for (const { kind, itemId } of events) {
      const index = kind === 'click' ? indexOf(itemId) : undefined;
      if (index !== undefined) items.add(index);
    }
    if (items.size > 1) baskets.push(Int32Array.from(items).sort());
  }
  return baskets;
}
