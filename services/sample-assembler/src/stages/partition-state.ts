/** The state of one partition's join, and what concerns several parts of it at once. */
import type { LateEvent, LateReason } from '@onemall/contracts';
import type { AttributionWindows } from '@onemall/event-time';
import { avroString } from '../bytes/avro.ts';
import { BlockArena } from '../bytes/block-arena.ts';
import { equalBytes, hashBytes } from '../bytes/hash.ts';
import type { Sections } from '../bytes/sections.ts';
import type { ActionFields, ExposureFields } from '../state/event-fields.ts';
import type { NewEntry } from '../state/history-list.ts';
import { KnownActions } from '../state/known-actions.ts';
import { KnownExposures, NONE } from '../state/known-exposures.ts';
import { type HistoryCache, Users } from '../state/users.ts';
import { lateActionFields } from './late-event.ts';

/** The arena of all blocks but warm histories: what is put there stays as it is until it is freed. */
const SLABS = 'Slabs';
const LEFT = { CLICK: 1, BUY: 2 } as const;

export class PartitionState {
  readonly arena = new BlockArena();
  readonly exposures = new KnownExposures(this.arena);
  readonly actions = new KnownActions(this.arena);
  readonly users: Users;
  readonly windows: AttributionWindows;
  readonly #scenarios: string[];
  /** Their names by number, as Avro strings. */
  readonly scenarioBytes: readonly Uint8Array[];
  /** From event time to closing, by scenario number. */
  readonly #closesAfterMs: number[];
  readonly #historyLength: number;
  readonly #entry: NewEntry = {
    timeMs: 0,
    bytes: new Uint8Array(0),
    idAt: 0,
    idLength: 0,
    otherAt: 0,
    otherLength: 0,
    itemAt: 0,
    itemLength: 0,
    itemHash: 0,
  };
  #watermarkMs = 0;
  readonly #cutoffMs = (user: number): number => this.#historyCutoffMs(user);

  constructor(windows: AttributionWindows, historyLength: number, cache: HistoryCache | null = null) {
    this.windows = windows;
    this.#scenarios = windows.scenarioNames;
    this.scenarioBytes = this.#scenarios.map(avroString);
    this.#closesAfterMs = this.#scenarios.map((name) => windows.closesAtMs(name, 0));
    this.#historyLength = historyLength;
    this.users = new Users(this.arena, historyLength, cache);
  }

  /** Of the join. */
  get watermarkMs(): number {
    return this.#watermarkMs;
  }
  /** @param doneToMs all that is due up to then has been done: what is known no longer than that is found no more */
  moveTo(watermarkMs: number, doneToMs: number): void {
    this.#watermarkMs = watermarkMs;
    this.exposures.forgottenToMs = doneToMs - this.windows.knownSpanMs;
    this.actions.forgottenToMs = doneToMs - this.windows.knownSpanMs;
  }

  get sizeBytes(): number {
    return this.arena.sizeBytes + this.exposures.sizeBytes + this.actions.sizeBytes + this.users.sizeBytes;
  }

  /**
   * @param goesOn the state may change at once: what is small is copied, and the slabs keep what they hold until `thaw`.
   * Else what is saved are views of live memory, which may not change until they are written
   */
  save(into: Sections, goesOn: boolean): void {
    this.arena.save(SLABS, into);
    this.exposures.save(into);
    this.actions.save(into);
    this.users.save(into);
    if (!goesOn) return;
    into.copyAllBut(SLABS);
    this.arena.freeze();
  }
  thaw(): void {
    this.arena.thaw();
  }
  load(from: Sections): void {
    this.arena.load(SLABS, from);
    this.exposures.load(from);
    this.actions.load(from);
    this.users.load(from);
  }

  closesAtMs(scenario: number, timeMs: number): number {
    return timeMs + this.#closesAfterMs[scenario]!;
  }

  /** Whether the action may count for the exposure: same user, within the window. */
  fits(exposure: number, action: number): boolean {
    const head = this.exposures.head(exposure);
    const fields = this.actions.fields(action);
    return (
      head.userLength === fields.userLength &&
      equalBytes(head.bytes, head.userAt, fields.bytes, fields.userAt, head.userLength) &&
      this.inWindow(exposure, action)
    );
  }

  inWindow(exposure: number, action: number): boolean {
    const { of } = this.exposures.columns;
    return this.windows.contains(
      this.#scenarios[of.scenario[exposure]!]!,
      of.timeMs[exposure]!,
      this.actions.kind(action),
      this.actions.columns.of.timeMs[action]!,
    );
  }

  namesExposure(action: number, exposure: number): boolean {
    const head = this.exposures.head(exposure);
    const { bytes, exposureAt, exposureLength } = this.actions.fields(action);
    return (
      exposureLength === head.idLength && equalBytes(head.bytes, head.idAt, bytes, exposureAt, exposureLength)
    );
  }

  /** Whether a CLICK or BUY, of the action's kind, has left for the exposure. */
  hasLeft(exposure: number, action: number): boolean {
    return (this.exposures.columns.of.left[exposure]! & LEFT[this.actions.kind(action)]) !== 0;
  }
  setLeft(exposure: number, action: number): void {
    const { left } = this.exposures.columns.of;
    left[exposure] = left[exposure]! | LEFT[this.actions.kind(action)];
  }

  linkToUser(exposure: number, user: number): void {
    const exposures = this.exposures.columns.of;
    const users = this.users.columns.of;
    const next = users.firstExposure[user]!;
    exposures.nextOfUser[exposure] = next;
    if (next !== NONE) exposures.previousOfUser[next] = exposure;
    users.firstExposure[user] = exposure;
  }

  forgetExposure(exposure: number): void {
    const { of } = this.exposures.columns;
    const next = of.nextOfUser[exposure]!;
    const previous = of.previousOfUser[exposure]!;
    const user = of.user[exposure]!;
    if (next !== NONE) of.previousOfUser[next] = previous;
    if (previous !== NONE) of.nextOfUser[previous] = next;
    else this.users.columns.of.firstExposure[user] = next;
    this.exposures.remove(exposure);
    if (this.#historyLength === 0 && this.users.columns.of.firstExposure[user] === NONE)
      this.users.remove(user);
  }

  /** @returns the user's slot */
  rememberExposure(fields: ExposureFields): number {
    const user = this.#user(fields);
    if (this.#historyLength === 0) return user;
    const entry = this.#entry;
    entry.otherAt = fields.requestAt;
    entry.otherLength = fields.requestLength;
    this.#remember(user, 'exposures', fields);
    return user;
  }

  rememberAction(fields: ActionFields, isBuy: boolean): void {
    if (this.#historyLength === 0) return;
    const entry = this.#entry;
    entry.otherAt = fields.exposureAt;
    entry.otherLength = Math.max(0, fields.exposureLength);
    this.#remember(this.#user(fields), isBuy ? 'buys' : 'clicks', fields);
  }

  /** The history tells from now on to which exposure the action belongs. */
  rememberTouch(exposure: number, action: number): void {
    if (this.#historyLength === 0) return;
    const { of } = this.users.columns;
    const kind = this.actions.kind(action) === 'BUY' ? 'buys' : 'clicks';
    const { bytes, idAt, idLength, timeMs } = this.actions.fields(action);
    const head = this.exposures.head(exposure);
    // Both lie in blocks of the arena, and not in one piece.
    const ids = Buffer.concat([
      bytes.subarray(idAt, idAt + idLength),
      head.bytes.subarray(head.idAt, head.idAt + head.idLength),
    ]);
    const user = this.exposures.columns.of.user[exposure]!;
    this.users.warm(user);
    of[kind][user] = this.users.lists.setOther(
      of[kind][user]!,
      timeMs,
      ids,
      0,
      idLength,
      idLength,
      head.idLength,
    );
  }

  lateKnownAction(action: number, reason: LateReason, partition: number, watermarkMs: number): LateEvent {
    return lateActionFields(this.actions.fields(action), reason, {
      topic: this.actions.kind(action) === 'BUY' ? 'buys' : 'clicks',
      partition,
      offset: this.actions.columns.of.offset[action]!,
      watermarkMs,
      payload: this.actions.payload(action),
    });
  }

  #user(fields: ExposureFields | ActionFields): number {
    const { bytes, userAt, userLength } = fields;
    const hash = hashBytes(bytes, userAt, userLength);
    const user = this.users.find(bytes, userAt, userLength, hash);
    return user === NONE ? this.users.add(bytes, userAt, userLength, hash) : user;
  }

  #remember(
    user: number,
    kind: 'exposures' | 'clicks' | 'buys',
    fields: ExposureFields | ActionFields,
  ): void {
    const entry = this.#entry;
    entry.timeMs = fields.timeMs;
    entry.bytes = fields.bytes;
    entry.idAt = fields.idAt;
    entry.idLength = fields.idLength;
    entry.itemAt = fields.itemAt;
    entry.itemLength = fields.itemLength;
    entry.itemHash = hashBytes(fields.bytes, fields.itemAt, fields.itemLength);
    this.users.remember(user, kind, entry, this.#cutoffMs);
  }

  /** No look-up for this user will be older: not for an open exposure, nor for one that may still come in time. */
  #historyCutoffMs(user: number): number {
    let cutoffMs = this.#watermarkMs - this.windows.knownSpanMs;
    const { of } = this.exposures.columns;
    for (
      let exposure = this.users.columns.of.firstExposure[user]!;
      exposure !== NONE;
      exposure = of.nextOfUser[exposure]!
    )
      if (of.isOpen[exposure]) cutoffMs = Math.min(cutoffMs, this.exposures.requestTimeMs(exposure));
    return cutoffMs;
  }
}
