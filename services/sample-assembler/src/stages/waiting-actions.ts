/** Actions that name an exposure which has not come, by the hash of the id that they name. */
import { hashBytes } from '../bytes/hash.ts';
import type { PartitionState } from './partition-state.ts';

const NONE_WAITING: readonly number[] = [];

export class WaitingActions {
  readonly #state: PartitionState;
  readonly #byExposure = new Map<number, number[]>();

  constructor(state: PartitionState) {
    this.#state = state;
  }

  get isEmpty(): boolean {
    return this.#byExposure.size === 0;
  }

  add(action: number): void {
    const hash = this.#hashOf(action);
    const others = this.#byExposure.get(hash);
    if (others) others.push(action);
    else this.#byExposure.set(hash, [action]);
  }

  /** Those that may count for an exposure that has come. */
  fitting(exposure: number, idHash: number): readonly number[] {
    const waiting = this.#byExposure.get(idHash);
    if (!waiting) return NONE_WAITING;
    const state = this.#state;
    return waiting.filter((action) => state.namesExposure(action, exposure) && state.fits(exposure, action));
  }

  remove(action: number): void {
    const hash = this.#hashOf(action);
    const others = this.#byExposure.get(hash);
    const at = others?.indexOf(action) ?? -1;
    if (!others || at < 0) return;
    if (others.length === 1) this.#byExposure.delete(hash);
    else others.splice(at, 1);
  }

  #hashOf(action: number): number {
    const { bytes, exposureAt, exposureLength } = this.#state.actions.fields(action);
    return hashBytes(bytes, exposureAt, exposureLength);
  }
}
