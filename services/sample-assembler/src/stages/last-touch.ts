/**
 * Last touch: an action that names no exposure takes the user's latest exposure of the item that does not come after it
 * and has it in its window (equal times: the greater id). Decided once, when the watermark reaches the action; an
 * exposure that comes after that never changes it, and where a replay would decide otherwise the decision is pinned.
 */
import { compareBytes, equalBytes, hashBytes } from '../bytes/hash.ts';
import type { Sections } from '../bytes/sections.ts';
import { STAGE } from '../state/known-actions.ts';
import { NONE } from '../state/known-exposures.ts';
import type { PartitionState } from './partition-state.ts';

export class LastTouch {
  readonly #state: PartitionState;
  readonly #startPins: ReadonlyMap<string, number>;
  /** Actions that name no exposure, until their end, by the hash of user and item. */
  readonly #touching = new Map<number, number[]>();
  /** Offsets of exposures by action: decisions that a replay would not repeat, since a better exposure came after. */
  readonly #pinned = new Map<string, number>();

  constructor(state: PartitionState, startPins: ReadonlyMap<string, number>) {
    this.#state = state;
    this.#startPins = startPins;
  }

  get numTouching(): number {
    return this.#touching.size;
  }

  get pins(): ReadonlyMap<string, number> {
    return this.#pinned;
  }

  save(into: Sections): void {
    into.facts.pinned = [...this.#pinned];
  }
  load(from: Sections): void {
    for (const [key, offset] of from.fact<[string, number][]>('pinned')) this.#pinned.set(key, offset);
  }

  add(action: number): void {
    const key = this.#keyOf(action);
    const others = this.#touching.get(key);
    if (others) others.push(action);
    else this.#touching.set(key, [action]);
  }

  /** @returns the exposure that the action takes, or -1 */
  decide(action: number): number {
    const key = this.#pinKey(action);
    const pinnedOffset = this.#startPins.get(key);
    let best = NONE;
    const fields = this.#state.actions.fields(action);
    const { users, exposures } = this.#state;
    const hash = hashBytes(fields.bytes, fields.userAt, fields.userLength);
    const user = users.find(fields.bytes, fields.userAt, fields.userLength, hash);
    const { of } = exposures.columns;
    const first = user === NONE ? NONE : users.columns.of.firstExposure[user]!;
    for (let exposure = first; exposure !== NONE; exposure = of.nextOfUser[exposure]!) {
      if (!this.#isOfItem(exposure, action)) continue;
      if (pinnedOffset === undefined) best = this.#better(best, exposure, action);
      else if (of.offset[exposure] === pinnedOffset) best = exposure;
    }
    if (best === NONE) return NONE;
    if (pinnedOffset !== undefined) this.#pinned.set(key, pinnedOffset);
    this.#take(best, action);
    return best;
  }

  /** Gives a new exposure to decided actions that have none; one that has a worse one keeps it. */
  offer(exposure: number, settle: (action: number) => void): void {
    const { exposures, actions } = this.#state;
    const head = exposures.head(exposure);
    const key = keyOf(head.bytes, head.userAt, head.userLength, head.itemAt, head.itemLength);
    for (const action of this.#touching.get(key)?.slice() ?? []) {
      const { of } = actions.columns;
      if (of.stage[action] === STAGE.undecided) continue;
      if (!this.#isOfUser(exposure, action) || !this.#isOfItem(exposure, action)) continue;
      const touched = of.exposure[action]!;
      if (this.#better(touched, exposure, action) !== exposure) continue;
      if (touched !== NONE) this.#pinned.set(this.#pinKey(action), exposures.columns.of.offset[touched]!);
      else {
        this.#take(exposure, action);
        settle(action);
      }
    }
  }

  /** The action can take no exposure any more. */
  end(action: number): void {
    if (this.#state.actions.fields(action).exposureLength >= 0) return;
    const key = this.#keyOf(action);
    const others = this.#touching.get(key)!;
    if (others.length === 1) this.#touching.delete(key);
    else others.splice(others.indexOf(action), 1);
    this.#pinned.delete(this.#pinKey(action));
  }

  #take(exposure: number, action: number): void {
    this.#state.actions.columns.of.exposure[action] = exposure;
    this.#state.rememberTouch(exposure, action);
  }

  /** The one that last touch prefers; `best` may be -1. */
  #better(best: number, exposure: number, action: number): number {
    const { of } = this.#state.exposures.columns;
    const timeMs = of.timeMs[exposure]!;
    if (timeMs > this.#state.actions.columns.of.timeMs[action]!) return best;
    if (!this.#state.inWindow(exposure, action)) return best;
    if (best === NONE) return exposure;
    const bestMs = of.timeMs[best]!;
    if (timeMs !== bestMs) return timeMs > bestMs ? exposure : best;
    const a = this.#state.exposures.head(exposure);
    const b = this.#state.exposures.otherHead(best);
    return compareBytes(a.bytes, a.idAt, a.idLength, b.bytes, b.idAt, b.idLength) > 0 ? exposure : best;
  }

  #isOfItem(exposure: number, action: number): boolean {
    const head = this.#state.exposures.head(exposure);
    const { bytes, itemAt, itemLength } = this.#state.actions.fields(action);
    return itemLength === head.itemLength && equalBytes(head.bytes, head.itemAt, bytes, itemAt, itemLength);
  }

  #isOfUser(exposure: number, action: number): boolean {
    const head = this.#state.exposures.head(exposure);
    const { bytes, userAt, userLength } = this.#state.actions.fields(action);
    return userLength === head.userLength && equalBytes(head.bytes, head.userAt, bytes, userAt, userLength);
  }

  #keyOf(action: number): number {
    const { bytes, userAt, userLength, itemAt, itemLength } = this.#state.actions.fields(action);
    return keyOf(bytes, userAt, userLength, itemAt, itemLength);
  }

  #pinKey(action: number): string {
    const { of } = this.#state.actions.columns;
    return `${of.isBuy[action] ? 'B' : 'C'}${of.offset[action]}`;
  }
}

const keyOf = (
  bytes: Uint8Array,
  userAt: number,
  userLength: number,
  itemAt: number,
  itemLength: number,
): number => Math.imul(hashBytes(bytes, userAt, userLength), 31) ^ hashBytes(bytes, itemAt, itemLength);
