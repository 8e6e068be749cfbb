/**
 * Hysteresis: a room that flips between two SIDs, such as one whose host goes back and forth between two products, would
 * make every reader rebuild its trie each time. It goes to a new SID at once, but back to the one it has just left only
 * when that has lasted. Time is passed in.
 */
import type { Sid } from '@onemall/contracts';
import { sameSid } from '../stages/decide-live-sid.ts';

export class FlapGuard {
  readonly #holdMs: number;
  readonly #left = new Map<string, { sid: Sid; atMs: number }>();

  /** @param holdMs 0 lets every change pass */
  constructor(holdMs: number) {
    this.#holdMs = holdMs;
  }

  /** When the room may go from `before` to `sid`; null for at once. */
  heldUntilMs(key: string, before: Sid | null, sid: Sid | null, nowMs: number): number | null {
    const left = this.#left.get(key);
    if (!left || !before || !sid || sameSid(before, sid) || !sameSid(left.sid, sid)) return null;
    const untilMs = left.atMs + this.#holdMs;
    return nowMs < untilMs ? untilMs : null;
  }

  /** The room has gone from `before` to another SID. */
  moved(key: string, before: Sid, nowMs: number): void {
    if (this.#holdMs > 0) this.#left.set(key, { sid: before, atMs: nowMs });
  }

  /** Forgets what holds nothing any more. */
  forget(nowMs: number): void {
    for (const [key, { atMs }] of this.#left) if (nowMs >= atMs + this.#holdMs) this.#left.delete(key);
  }
}
