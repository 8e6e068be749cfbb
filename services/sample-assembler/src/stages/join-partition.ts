/**
 * The join of one partition number of the three logs. What it gives is a function of the records fed so far, each
 * input in offset order, and the watermark: how the inputs were interleaved and when it was advanced do not matter as
 * long as no event is further out of order than the bound. Feeding the records from the restore offsets on and
 * advancing once to a committed watermark therefore rebuilds the state of the moment of that commit.
 *
 * State is bytes and numbers (`src/state`); `test/plain` has the same join on plain objects, record for record.
 */
import type { LateReason } from '@onemall/contracts';
import { type AttributionWindows, orderOfAction, ReplayMarks, type SavedMarks } from '@onemall/event-time';
import { hashBytes } from '../bytes/hash.ts';
import type { Sections } from '../bytes/sections.ts';
import { DueTasks } from '../state/due-tasks.ts';
import { STAGE } from '../state/known-actions.ts';
import { NONE } from '../state/known-exposures.ts';
import { bucketOf, TimeBuckets } from '../state/time-buckets.ts';
import type { HistoryCache } from '../state/users.ts';
import type { CatalogueBytes } from './catalogue.ts';
import { eachTaskOf, JoinTaskTimes, kindOf, slotOf, TASK, type TaskKind, taskOf } from './join-tasks.ts';
import { labelLinked } from './label-exposure.ts';
import { LastTouch } from './last-touch.ts';
import { lateAction, lateExposure } from './late-event.ts';
import { type BadRecord, type JoinOutputs, LOG_TOPICS, type LogEvent, type LogTopic } from './log-record.ts';
import { type JoinCounts, Outbox } from './outbox.ts';
import { PartitionState } from './partition-state.ts';
import type { SampleBlock } from './sample-block.ts';
import { WaitingActions } from './waiting-actions.ts';
import { SAMPLE_KIND, type SampleKindNumber, SampleWriter } from './write-sample.ts';

export interface JoinRules {
  windows: AttributionWindows;
  /** H: events of each kind in a history. */
  historyLength: number;
  /** Whether the first click and the first buy leave as samples of their own. */
  emitPositives: boolean;
  /** Stands before the Avro bytes of a sample. */
  sampleHeader: Uint8Array;
  /** How exact restore offsets are. */
  recordsPerMark?: number;
}

/** What the offset metadata of a commit keeps besides the offsets. */
export interface JoinStart {
  watermarkMs: number;
  /** Offsets of exposures by action, as `pins()` gave them. */
  pins?: ReadonlyMap<string, number>;
}

export class PartitionJoin {
  readonly #partition: number;
  readonly #rules: JoinRules;
  readonly #state: PartitionState;
  readonly #marks: Readonly<Record<LogTopic, ReplayMarks>>;
  readonly #times: JoinTaskTimes;
  readonly #tasks: DueTasks;
  /** What is to be forgotten goes when its second is over, all at once; until then nothing finds it. */
  readonly #toForget = new TimeBuckets();
  readonly #touch: LastTouch;
  readonly #writer: SampleWriter;
  readonly #waiting: WaitingActions;
  readonly #outbox = new Outbox();
  #reachedAtMs = 0;
  #numWaiting = 0;
  readonly #forget = (task: number): void => {
    if (kindOf(task) === TASK.forgetExposure) this.#state.forgetExposure(slotOf(task));
    else this.#state.actions.remove(slotOf(task));
  };

  /** @param cache where histories go that memory has no room for; without it all stay there */
  constructor(
    partition: number,
    rules: JoinRules,
    catalogue: CatalogueBytes,
    start: JoinStart,
    cache: HistoryCache | null = null,
  ) {
    this.#partition = partition;
    this.#rules = rules;
    this.#state = new PartitionState(rules.windows, rules.historyLength, cache);
    this.#state.moveTo(start.watermarkMs, start.watermarkMs);
    this.#waiting = new WaitingActions(this.#state);
    this.#touch = new LastTouch(this.#state, start.pins ?? new Map());
    this.#writer = new SampleWriter(this.#state, catalogue, rules.sampleHeader, rules.historyLength);
    const marks = (): ReplayMarks => new ReplayMarks(rules.recordsPerMark);
    this.#marks = { exposures: marks(), clicks: marks(), buys: marks() };
    this.#times = new JoinTaskTimes(this.#state);
    this.#tasks = new DueTasks(this.#times);
  }

  get watermarkMs(): number {
    return this.#state.watermarkMs;
  }
  get openExposures(): number {
    return this.#state.exposures.numOpen;
  }
  get waitingActions(): number {
    return this.#numWaiting;
  }
  get historyEvents(): number {
    return this.#state.users.numEntries;
  }
  get users(): number {
    return this.#state.users.columns.size;
  }
  get stateBytes(): number {
    return this.#state.sizeBytes + this.#tasks.sizeBytes + this.#toForget.sizeBytes;
  }
  /** Why histories stay in memory that should be on disk. */
  get coldError(): Error | null {
    return this.#state.users.coldError;
  }
  get numOutputs(): number {
    return this.#outbox.numOutputs;
  }
  get outputBytes(): number {
    return this.#outbox.samples.sizeBytes;
  }
  /** No sample that is still to leave asks the catalogue for a moment before this one less a window and grace. */
  get neededFromMs(): number {
    return this.#state.exposures.oldestOpenRequestMs(this.watermarkMs - this.#rules.windows.knownSpanMs);
  }

  /**
   * What a snapshot holds, of this moment.
   * @param goesOn whether the join is used before all is written, after which `thaw` must be called
   */
  save(into: Sections, goesOn: boolean): void {
    this.#touch.save(into);
    this.#state.save(into, goesOn);
    into.facts.watermarkMs = this.watermarkMs;
    into.facts.marks = LOG_TOPICS.map((topic) => this.#marks[topic].save());
  }
  thaw(): void {
    this.#state.thaw();
  }
  /** Puts a snapshot into a join that was fed nothing yet. Tasks follow from the state. */
  load(from: Sections): void {
    this.#state.load(from);
    this.#touch.load(from);
    const watermarkMs = from.fact<number>('watermarkMs');
    this.#state.moveTo(watermarkMs, watermarkMs);
    const marks = from.fact<SavedMarks[]>('marks');
    for (const [i, topic] of LOG_TOPICS.entries()) this.#marks[topic].load(marks[i]!);
    eachTaskOf(this.#state, this.#rules.emitPositives, (kind, slot) => this.#schedule(kind, slot));
    this.#restoreActions();
  }

  #restoreActions(): void {
    const { columns } = this.#state.actions;
    for (let action = 0; action < columns.end; action++) {
      if (!columns.isUsed(action) || columns.of.stage[action] === STAGE.ended) continue;
      const { exposureLength } = this.#state.actions.fields(action);
      if (exposureLength < 0) this.#touch.add(action);
      if (columns.of.isDone[action]) continue;
      this.#numWaiting++;
      if (exposureLength >= 0) this.#waiting.add(action);
    }
  }

  /** Takes one record. @returns its event time */
  feed(event: LogEvent): number {
    const { timeMs, topic } = event;
    this.#marks[topic].see(event.offset, timeMs + this.#rules.windows.knownSpanMs);
    if (topic === 'exposures') this.#feedExposure(event);
    else this.#feedAction(event, topic === 'buys');
    return timeMs;
  }
  /** Takes bad input, which moves no watermark. */
  feedBad(record: BadRecord): void {
    this.#outbox.dead(record);
    this.#marks[record.topic].see(record.offset, Number.NEGATIVE_INFINITY);
  }

  /** Takes a record that only histories need any more: one from before the restore offsets. */
  remember(event: LogEvent): void {
    if (event.topic === 'exposures') this.#state.rememberExposure(event.exposure);
    else this.#state.rememberAction(event.action, event.topic === 'buys');
  }

  /**
   * Lets leave, in order of event time, what is due up to this watermark. It never goes back, and it stands at the time of
   * each record that leaves, so that a sample is the same however far it was moved at once.
   * @param reachedAtMs clock time at which the inputs had reached it, the cause of FINAL samples
   * @param maxOutputBytes more waiting outputs stop it before the next moment; it then stands where everything has left
   * @returns whether it got there
   */
  advance(watermarkMs: number, reachedAtMs = 0, maxOutputBytes = Number.POSITIVE_INFINITY): boolean {
    this.#reachedAtMs = reachedAtMs;
    const target = Math.max(watermarkMs, this.watermarkMs);
    const tasks = this.#tasks;
    let isThere = true;
    for (let nextMs = tasks.nextMs(target); nextMs <= target; nextMs = tasks.nextMs(target)) {
      if (nextMs > this.watermarkMs) {
        isThere = this.#outbox.samples.sizeBytes < maxOutputBytes;
        if (!isThere) break;
        this.#state.moveTo(nextMs, nextMs - 1);
      }
      this.#run(tasks.take());
    }
    const reachedMs = isThere ? target : this.watermarkMs;
    this.#state.moveTo(reachedMs, reachedMs);
    const toForget = this.#toForget;
    while (!toForget.isEmpty && toForget.endsMs <= reachedMs) toForget.take(this.#forget);
    return isThere;
  }

  /** Hands over what has left since the last call. */
  takeOutputs(): JoinOutputs {
    return this.#outbox.take();
  }
  /** Takes back a block of outputs that nobody looks at any more, for later ones. */
  giveBack(block: SampleBlock): void {
    this.#outbox.giveBack(block);
  }
  /** Hands over the counts since the last call. */
  takeCounts(): JoinCounts {
    return this.#outbox.takeCounts();
  }
  /** Ends a replay: what it gave has been committed before. */
  discardReplay(): void {
    this.takeOutputs();
    this.takeCounts();
  }

  /** Where a replay at the present watermark must begin. */
  restoreOffset(topic: LogTopic, nextOffset: number): number {
    return this.#marks[topic].restoreOffset(this.watermarkMs, nextOffset);
  }

  /** Offsets of the exposures that decided actions keep although a better one came later; goes into the commit. */
  pins(): ReadonlyMap<string, number> {
    return this.#touch.pins;
  }
  /** Forgets users not seen since then, a few at a time. */
  forgetUsersBefore(timeMs: number, numSlots: number): void {
    this.#state.users.forgetBefore(timeMs, numSlots);
  }

  #feedExposure(event: LogEvent): void {
    const { exposure: fields, scenario } = event;
    const { exposures } = this.#state;
    const hash = hashBytes(fields.bytes, fields.idAt, fields.idLength);
    if (exposures.find(fields.bytes, fields.idAt, fields.idLength, hash) !== NONE) {
      this.#outbox.counts.duplicates++;
      return;
    }
    const { timeMs } = fields;
    const user = this.#state.rememberExposure(fields);
    const isOpen = this.#state.closesAtMs(scenario, timeMs) > this.watermarkMs;
    if (!isOpen) this.#outbox.late(lateExposure(event, this.#partition, this.watermarkMs));
    const knownUntilMs = timeMs + this.#rules.windows.knownSpanMs;
    if (knownUntilMs <= this.watermarkMs) return;
    const slot = exposures.add(fields, hash, scenario, event.offset, user, isOpen);
    this.#state.linkToUser(slot, user);
    if (isOpen) this.#schedule(TASK.close, slot);
    else this.#schedule(TASK.forgetExposure, slot);
    if (!this.#waiting.isEmpty)
      for (const action of this.#waiting.fitting(slot, hash)) this.#settle(slot, action);
    if (this.#touch.numTouching > 0) this.#touch.offer(slot, (action) => this.#settle(slot, action));
  }

  #feedAction(event: LogEvent, isBuy: boolean): void {
    const { action: fields } = event;
    const { actions, exposures } = this.#state;
    const hash = hashBytes(fields.bytes, fields.idAt, fields.idLength);
    if (actions.find(fields, isBuy, hash) !== NONE) {
      this.#outbox.counts.duplicates++;
      return;
    }
    const { windows } = this.#rules;
    const { timeMs } = fields;
    this.#state.rememberAction(fields, isBuy);
    const knownUntilMs = timeMs + windows.knownSpanMs;
    const endsAtMs = windows.actionEndsAtMs(timeMs);
    if (knownUntilMs <= this.watermarkMs) {
      this.#outbox.late(lateAction(event, this.#partition, this.watermarkMs));
      return;
    }
    const isUnnamed = fields.exposureLength < 0;
    const action = actions.add(fields, isBuy, hash, event.payload, {
      offset: event.offset,
      appendTimeMs: event.appendTimeMs,
      stage: isUnnamed ? STAGE.undecided : STAGE.waiting,
    });
    if (endsAtMs <= this.watermarkMs) {
      this.#outbox.late(lateAction(event, this.#partition, this.watermarkMs));
      this.#end(action);
      return;
    }
    this.#numWaiting++;
    if (isUnnamed) {
      this.#touch.add(action);
      this.#schedule(TASK.decide, action);
      return;
    }
    this.#schedule(TASK.endAction, action);
    const exposureHash = hashBytes(fields.bytes, fields.exposureAt, fields.exposureLength);
    const exposure = exposures.find(fields.bytes, fields.exposureAt, fields.exposureLength, exposureHash);
    if (exposure !== NONE && this.#state.fits(exposure, action)) this.#settle(exposure, action);
    else this.#waiting.add(action);
  }

  /** Counts the action for its exposure, or reports it late where that has closed. */
  #settle(exposure: number, action: number): void {
    const { exposures, actions } = this.#state;
    const { of } = actions.columns;
    if (of.isDone[action]) return;
    of.isDone[action] = 1;
    this.#stopWaiting(action);
    if (!exposures.columns.of.isOpen[exposure]) {
      this.#reportAction(action, 'LATE');
      return;
    }
    of.exposure[action] = exposure;
    of.nextOfExposure[action] = exposures.columns.of.firstAction[exposure]!;
    exposures.columns.of.firstAction[exposure] = action;
    if (this.#rules.emitPositives && !this.#state.hasLeft(exposure, action))
      this.#schedule(TASK.emit, action);
  }

  #stopWaiting(action: number): void {
    this.#numWaiting--;
    if (this.#state.actions.fields(action).exposureLength >= 0) this.#waiting.remove(action);
  }

  #run(due: number): void {
    const slot = slotOf(due);
    const kind = kindOf(due);
    if (kind === TASK.decide) this.#decide(slot);
    else if (kind === TASK.emit) this.#emitPositive(slot);
    else if (kind === TASK.close) this.#close(slot);
    else this.#endAction(slot);
  }

  #decide(action: number): void {
    const { of } = this.#state.actions.columns;
    of.stage[action] = STAGE.waiting;
    this.#schedule(TASK.endAction, action);
    const exposure = this.#touch.decide(action);
    if (exposure !== NONE) this.#settle(exposure, action);
  }

  #emitPositive(action: number): void {
    const { exposures, actions } = this.#state;
    const exposure = actions.columns.of.exposure[action]!;
    const { of } = exposures.columns;
    if (!of.isOpen[exposure] || this.#state.hasLeft(exposure, action)) return;
    const kind = actions.kind(action);
    const firstPositive = of.left[exposure] === 0;
    this.#state.setLeft(exposure, action);
    const upToOrder = orderOfAction(kind, actions.columns.of.timeMs[action]!);
    const causeMs = actions.columns.of.appendTimeMs[action]!;
    this.#emit(exposure, SAMPLE_KIND[kind], firstPositive, upToOrder, causeMs);
  }

  #close(exposure: number): void {
    const { exposures } = this.#state;
    const { of } = exposures.columns;
    const firstPositive = of.firstAction[exposure] !== NONE && !this.#rules.emitPositives;
    this.#emit(exposure, SAMPLE_KIND.FINAL, firstPositive, Number.POSITIVE_INFINITY, this.#reachedAtMs);
    exposures.close(exposure);
    this.#schedule(TASK.forgetExposure, exposure);
  }

  #emit(
    exposure: number,
    kind: SampleKindNumber,
    firstPositive: boolean,
    upToOrder: number,
    causeMs: number,
  ): void {
    const { exposures, actions } = this.#state;
    const { of } = exposures.columns;
    const labels = labelLinked(of.timeMs[exposure]!, actions, of.firstAction[exposure]!, upToOrder);
    const watermarkMs = this.watermarkMs;
    if (
      !this.#writer.write(this.#outbox.samples, exposure, kind, firstPositive, labels, watermarkMs, causeMs)
    )
      this.#outbox.counts.withoutSid++;
  }

  #endAction(action: number): void {
    const { of } = this.#state.actions.columns;
    this.#touch.end(action);
    if (!of.isDone[action]) {
      of.isDone[action] = 1;
      this.#stopWaiting(action);
      this.#reportAction(action, 'ORPHAN');
    }
    this.#end(action);
  }

  /** Nothing more can come of the action: only copies of it. */
  #end(action: number): void {
    const { of } = this.#state.actions.columns;
    of.stage[action] = STAGE.ended;
    of.isDone[action] = 1;
    this.#schedule(TASK.forgetAction, action);
  }

  #schedule(kind: TaskKind, slot: number): void {
    const task = taskOf(kind, slot);
    const atMs = this.#times.atMs(task);
    if (kind < TASK.forgetExposure) this.#tasks.add(task, atMs);
    else this.#toForget.add(bucketOf(atMs), task);
  }

  #reportAction(action: number, reason: LateReason): void {
    this.#outbox.late(this.#state.lateKnownAction(action, reason, this.#partition, this.watermarkMs));
  }
}
