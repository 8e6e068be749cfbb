/**
 * Which users have their histories in memory, and who of them goes first: the clock algorithm, which takes in turn who was
 * not asked for since the hand passed last.
 */
import { NONE } from './known-exposures.ts';

/** Columns of the users: replaced when they grow, so they are asked for each time. */
export interface WarmColumns {
  /** Place among the warm ones, or -1. */
  warmAt: Int32Array;
  /** Whether the user was asked for since the hand passed. */
  isTouched: Uint8Array;
}

export class WarmUsers {
  readonly #columns: () => WarmColumns;
  readonly #users: number[] = [];
  #hand = 0;

  constructor(columns: () => WarmColumns) {
    this.#columns = columns;
  }

  get size(): number {
    return this.#users.length;
  }

  touch(user: number): void {
    const { warmAt, isTouched } = this.#columns();
    isTouched[user] = 1;
    if (warmAt[user] !== NONE) return;
    warmAt[user] = this.#users.length;
    this.#users.push(user);
  }

  remove(user: number): void {
    const { warmAt } = this.#columns();
    const at = warmAt[user]!;
    if (at === NONE) return;
    warmAt[user] = NONE;
    const last = this.#users.pop()!;
    if (last === user) return;
    this.#users[at] = last;
    warmAt[last] = at;
  }

  /** Who should go next, other than the given one; -1 where there is none. */
  next(except: number): number {
    const { isTouched } = this.#columns();
    const users = this.#users;
    // The second round meets no touched one.
    for (let steps = 2 * users.length; steps > 0; steps--) {
      if (this.#hand >= users.length) this.#hand = 0;
      const user = users[this.#hand]!;
      if (user !== except && isTouched[user] === 0) return user;
      isTouched[user] = 0;
      this.#hand++;
    }
    return NONE;
  }

  /** Those that a snapshot says are warm, in the order that they had. */
  load(slots: { end: number; isUsed(slot: number): boolean }): void {
    const { warmAt } = this.#columns();
    for (let user = 0; user < slots.end; user++)
      if (slots.isUsed(user) && warmAt[user] !== NONE) this.#users[warmAt[user]!] = user;
  }
}
