/**
 * Which requests of the sample stream become rollouts, which are held back to measure, and which pass. One request has
 * many FINAL records; it is decided once, by the hash of its id, so that every replica and every replay agrees.
 */
import { hashFraction, isHeldBack } from '@onemall/service-kit';

export interface SelectionShares {
  /** Share of requests that become rollouts (the paper: 2 %). */
  rolloutShare: number;
  /** Share kept out of training and RL, to measure on. */
  heldBackFraction: number;
}

export type Selection = 'rollout' | 'heldBack' | 'pass';

/**
 * selectRequest({rolloutShare: 1, heldBackFraction: 0}, id) is 'rollout' for every id; a held-back request is never a rollout.
 */
export function selectRequest(shares: SelectionShares, requestId: string): Selection {
  if (isHeldBack(requestId, shares.heldBackFraction)) return 'heldBack';
  return hashFraction(requestId) < shares.rolloutShare ? 'rollout' : 'pass';
}

/** Ids seen lately: the newest `capacity` of them. */
export class RecentIds {
  readonly #ids = new Set<string>();
  readonly #capacity: number;
  constructor(capacity: number) {
    this.#capacity = capacity;
  }
  /** True the first time. */
  add(id: string): boolean {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > this.#capacity) this.#ids.delete(this.#ids.values().next().value!);
    return true;
  }
}

/** A budget of events per second with room for one second's worth at once; what exceeds it is shed. */
export class RateBudget {
  readonly #perS: number;
  readonly #burst: number;
  #tokens: number;
  #lastMs: number | undefined;
  constructor(perS: number) {
    this.#perS = perS;
    this.#burst = Math.max(1, perS);
    this.#tokens = this.#burst;
  }
  take(nowMs: number): boolean {
    const elapsedMs = Math.max(0, nowMs - (this.#lastMs ?? nowMs));
    this.#lastMs = nowMs;
    this.#tokens = Math.min(this.#burst, this.#tokens + (elapsedMs * this.#perS) / 1000);
    if (this.#perS === 0 || this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

/** Share of events with a mark among those of the last `windowMs`, in ten steps of time. */
export class SlidingShare {
  readonly #stepMs: number;
  #steps: { at: number; marked: number; all: number }[] = [];
  constructor(windowMs: number) {
    this.#stepMs = windowMs / STEPS;
  }
  add(marked: boolean, nowMs: number): void {
    const at = Math.floor(nowMs / this.#stepMs);
    let newest = this.#steps.at(-1);
    if (newest?.at !== at) {
      newest = { at, marked: 0, all: 0 };
      this.#steps.push(newest);
    }
    newest.all++;
    if (marked) newest.marked++;
  }
  /** 0 where nothing happened. */
  share(nowMs: number): number {
    const oldest = Math.floor(nowMs / this.#stepMs) - STEPS;
    this.#steps = this.#steps.filter(({ at }) => at > oldest);
    const all = this.#steps.reduce((sum, step) => sum + step.all, 0);
    return all === 0 ? 0 : this.#steps.reduce((sum, step) => sum + step.marked, 0) / all;
  }
}
const STEPS = 10;
