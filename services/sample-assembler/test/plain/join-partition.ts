/**
 * The slow, obvious twin of src/stages/join-partition.ts, on plain objects, maps and arrays.
 *
 * The join of one partition number of the three logs. What it gives is a function of the records fed so far, each
 * input in offset order, and the watermark: how the inputs were interleaved and when it was advanced do not matter as
 * long as no event is further out of order than the bound. Feeding the records from the restore offsets on and
 * advancing once to a committed watermark therefore rebuilds the state of the moment of that commit.
 */
import type { Buy, Click, Exposure, LateReason } from '@onemall/contracts';
import {
  type ActionKind,
  type AttributionWindows,
  type CountedAction,
  labelExposure,
  lastTouch,
  orderOfAction,
  ReplayMarks,
} from '@onemall/event-time';
import type { LogTopic } from '../../src/stages/log-record.ts';
import {
  type Action,
  type JoinCounts,
  type KnownExposure,
  noCounts,
  pinKey,
  push,
  RANK,
  remove,
  type Task,
  userItem,
} from './join-state.ts';
import type { JoinOutput, LogRecord } from './log-record.ts';
import type { PlainCatalogue } from './make-sample.ts';
import { makeSample } from './make-sample.ts';
import { TimerQueue } from './timer-queue.ts';
import { type HistoryEntry, UserHistories } from './user-histories.ts';

export interface JoinRules {
  windows: AttributionWindows;
  /** H: events of each kind in a history. */
  historyLength: number;
  /** Whether the first click and the first buy leave as samples of their own. */
  emitPositives: boolean;
  /** How exact restore offsets are. */
  recordsPerMark?: number;
}

/** What the offset metadata of a commit keeps besides the offsets. */
export interface JoinStart {
  watermarkMs: number;
  /** Offsets of exposures by action, as `pins()` gave them. */
  pins?: ReadonlyMap<string, number>;
}

export class PlainJoin {
  readonly #partition: number;
  readonly #rules: JoinRules;
  readonly #catalogue: PlainCatalogue;
  readonly histories: UserHistories;
  readonly #marks: Readonly<Record<LogTopic, ReplayMarks>>;
  readonly #exposures = new Map<string, KnownExposure>();
  readonly #exposuresOfUser = new Map<string, KnownExposure[]>();
  /** Kind and id of every action counted, reported or waiting, so that copies are dropped. */
  readonly #seenActions = new Set<string>();
  /** By the exposureId that they name. */
  readonly #waiting = new Map<string, Action[]>();
  /** Actions that name no exposure, by user and item, until their end. */
  readonly #touching = new Map<string, Action[]>();
  readonly #timers = new TimerQueue<Task>();
  readonly #startPins: ReadonlyMap<string, number>;
  /** Last-touch decisions that a replay would not repeat, since a better exposure came after them. */
  readonly #pinned = new Map<string, { exposureOffset: number; endsAtMs: number }>();
  #outputs: JoinOutput[] = [];
  #watermarkMs: number;
  #reachedAtMs = 0;
  #numOpen = 0;
  #numWaiting = 0;
  #counts: JoinCounts = noCounts();

  constructor(partition: number, rules: JoinRules, catalogue: PlainCatalogue, start: JoinStart) {
    this.#partition = partition;
    this.#rules = rules;
    this.#catalogue = catalogue;
    this.#watermarkMs = start.watermarkMs;
    this.#startPins = start.pins ?? new Map();
    this.histories = new UserHistories(rules.historyLength);
    const marks = (): ReplayMarks => new ReplayMarks(rules.recordsPerMark);
    this.#marks = { exposures: marks(), clicks: marks(), buys: marks() };
  }

  get watermarkMs(): number {
    return this.#watermarkMs;
  }
  get openExposures(): number {
    return this.#numOpen;
  }
  get waitingActions(): number {
    return this.#numWaiting;
  }
  get numOutputs(): number {
    return this.#outputs.length;
  }

  /** No sample that is still to leave asks the catalogue for a moment before this one less a window and grace. */
  get neededFromMs(): number {
    let fromMs = this.#watermarkMs - this.#rules.windows.knownSpanMs;
    for (const { open, requestTimeMs } of this.#exposures.values())
      if (open && requestTimeMs < fromMs) fromMs = requestTimeMs;
    return fromMs;
  }

  /** Takes one record. @returns its event time, or null for bad input, which moves no watermark */
  feed(record: LogRecord): number | null {
    if (record.event === null) {
      this.#counts.dead++;
      this.#outputs.push({ kind: 'dead', record });
      this.#marks[record.topic].see(record.offset, Number.NEGATIVE_INFINITY);
      return null;
    }
    const timeMs = record.event.eventTimeMs;
    this.#marks[record.topic].see(record.offset, timeMs + this.#rules.windows.knownSpanMs);
    if (record.topic === 'exposures') this.#feedExposure(record, record.event);
    else if (record.topic === 'clicks') this.#feedAction(record, record.event, 'CLICK', 0, 0);
    else
      this.#feedAction(
        record,
        record.event,
        'BUY',
        record.event.priceCents * record.event.quantity,
        record.event.quantity,
      );
    return timeMs;
  }

  /** Takes a record that only histories need any more: one from before the restore offsets. */
  remember(record: LogRecord): void {
    if (record.event === null) return;
    if (record.topic === 'exposures') this.#rememberExposure(record.event);
    else this.#rememberAction(record.event, record.topic === 'clicks' ? 'CLICK' : 'BUY');
  }

  /**
   * Lets leave, in order of event time, what is due up to this watermark. It never goes back, and it stands at the time of
   * each record that leaves, so that a sample is the same however far it was moved at once.
   * @param reachedAtMs clock time at which the inputs had reached it, the cause of FINAL samples
   * @param maxOutputs more waiting outputs stop it before the next moment; it then stands where everything has left
   * @returns whether it got there
   */
  advance(watermarkMs: number, reachedAtMs = 0, maxOutputs = Number.POSITIVE_INFINITY): boolean {
    this.#reachedAtMs = reachedAtMs;
    const target = Math.max(watermarkMs, this.#watermarkMs);
    for (let nextMs = this.#timers.nextMs; nextMs <= target; nextMs = this.#timers.nextMs) {
      if (nextMs > this.#watermarkMs) {
        if (this.#outputs.length >= maxOutputs) return false;
        this.#watermarkMs = nextMs;
      }
      this.#run(this.#timers.take(nextMs)!.task);
    }
    this.#watermarkMs = target;
    return true;
  }

  /** Hands over what has left since the last call, in order of event time. */
  takeOutputs(): JoinOutput[] {
    const outputs = this.#outputs;
    this.#outputs = [];
    return outputs;
  }

  /** Hands over the counts since the last call. */
  takeCounts(): JoinCounts {
    const counts = this.#counts;
    this.#counts = noCounts();
    return counts;
  }

  /** Ends a replay: what it gave has been committed before. */
  discardReplay(): void {
    this.takeOutputs();
    this.takeCounts();
  }

  /** Where a replay at the present watermark must begin. */
  restoreOffset(topic: LogTopic, nextOffset: number): number {
    return this.#marks[topic].restoreOffset(this.#watermarkMs, nextOffset);
  }

  /** Offsets of the exposures that decided actions keep although a better one came later; goes into the commit. */
  pins(): Map<string, number> {
    return new Map([...this.#pinned].map(([key, pin]) => [key, pin.exposureOffset]));
  }

  #feedExposure(record: LogRecord, exposure: Exposure): void {
    if (this.#exposures.has(exposure.exposureId)) {
      this.#counts.duplicates++;
      return;
    }
    this.#rememberExposure(exposure);
    const { windows } = this.#rules;
    const timeMs = exposure.eventTimeMs;
    const closesAtMs = windows.closesAtMs(exposure.scenario, timeMs);
    const isOpen = closesAtMs > this.#watermarkMs;
    if (!isOpen) this.#reportLate(record, 'LATE');
    const knownUntilMs = timeMs + windows.knownSpanMs;
    if (knownUntilMs <= this.#watermarkMs) return;
    const { exposureId, userId, itemId, scenario, requestId, requestTimeMs } = exposure;
    const known: KnownExposure = {
      exposureId,
      userId,
      itemId,
      scenario,
      requestId,
      requestTimeMs,
      timeMs,
      offset: record.offset,
      open: isOpen ? { exposure, actions: [] } : null,
      clickLeft: false,
      buyLeft: false,
    };
    this.#exposures.set(exposureId, known);
    const ofUser = this.#exposuresOfUser.get(userId);
    if (ofUser) ofUser.push(known);
    else this.#exposuresOfUser.set(userId, [known]);
    if (isOpen) {
      this.#numOpen++;
      this.#schedule(closesAtMs, { do: 'close', exposure: known });
    }
    this.#schedule(knownUntilMs, { do: 'forget', exposure: known });
    for (const action of [...(this.#waiting.get(exposureId) ?? [])])
      if (this.#fits(known, action)) this.#settle(known, action);
    for (const action of this.#touching.get(userItem(userId, itemId)) ?? []) this.#offerTouch(known, action);
  }

  #feedAction(
    record: LogRecord,
    event: Click | Buy,
    kind: ActionKind,
    valueCents: number,
    quantity: number,
  ): void {
    const seenId = `${kind}:${event.actionId}`;
    if (this.#seenActions.has(seenId)) {
      this.#counts.duplicates++;
      return;
    }
    const { windows } = this.#rules;
    const timeMs = event.eventTimeMs;
    const history = this.#rememberAction(event, kind);
    const knownUntilMs = timeMs + windows.knownSpanMs;
    if (knownUntilMs > this.#watermarkMs) {
      this.#seenActions.add(seenId);
      this.#schedule(knownUntilMs, { do: 'forgetAction', id: seenId });
    }
    const endsAtMs = windows.actionEndsAtMs(timeMs);
    if (endsAtMs <= this.#watermarkMs) {
      this.#reportLate(record, 'LATE');
      return;
    }
    const action: Action = {
      record,
      event,
      kind,
      timeMs,
      valueCents,
      quantity,
      endsAtMs,
      done: false,
      decided: false,
      touched: null,
      history,
    };
    if (event.exposureId !== null) {
      const exposure = this.#exposures.get(event.exposureId);
      if (exposure && this.#fits(exposure, action)) {
        this.#settle(exposure, action);
        return;
      }
      push(this.#waiting, event.exposureId, action);
    } else {
      push(this.#touching, userItem(event.userId, event.itemId), action);
      this.#schedule(timeMs, { do: 'decide', action });
    }
    this.#numWaiting++;
    this.#schedule(endsAtMs, { do: 'endAction', action });
  }

  #fits(exposure: KnownExposure, action: Action): boolean {
    return (
      exposure.userId === action.event.userId &&
      this.#rules.windows.contains(exposure.scenario, exposure.timeMs, action.kind, action.timeMs)
    );
  }

  /** Counts the action for its exposure, or reports it late where that has closed. */
  #settle(exposure: KnownExposure, action: Action): void {
    const { event } = action;
    if (event.exposureId !== null) this.#stopWaiting(event.exposureId, action);
    else if (!action.done) this.#numWaiting--;
    action.done = true;
    if (!exposure.open) {
      this.#reportLate(action.record, 'LATE');
      return;
    }
    const { kind, timeMs, valueCents, quantity } = action;
    const counted: CountedAction = { kind, timeMs, valueCents, quantity };
    exposure.open.actions.push(counted);
    if (this.#rules.emitPositives && !(kind === 'CLICK' ? exposure.clickLeft : exposure.buyLeft))
      this.#schedule(
        Math.max(timeMs, exposure.timeMs),
        { do: 'emit', exposure, kind, action: counted, appendTimeMs: action.record.appendTimeMs },
        orderOfAction(kind, timeMs),
      );
  }

  #decideTouch(action: Action): void {
    if (action.done) return;
    action.decided = true;
    const { userId, itemId } = action.event;
    const candidates = (this.#exposuresOfUser.get(userId) ?? []).filter((e) => e.itemId === itemId);
    const pinnedOffset = this.#startPins.get(pinKey(action));
    const exposure =
      pinnedOffset === undefined
        ? lastTouch(this.#rules.windows, candidates, action.kind, action.timeMs)
        : candidates.find((e) => e.offset === pinnedOffset);
    if (!exposure) return;
    if (pinnedOffset !== undefined) this.#pin(action, exposure);
    this.#touch(exposure, action);
  }

  /** An exposure that comes after an action was decided never changes the decision. */
  #offerTouch(exposure: KnownExposure, action: Action): void {
    if (!action.decided) return;
    const candidates = action.touched ? [action.touched, exposure] : [exposure];
    if (lastTouch(this.#rules.windows, candidates, action.kind, action.timeMs) !== exposure) return;
    if (action.touched) this.#pin(action, action.touched);
    else this.#touch(exposure, action);
  }

  #touch(exposure: KnownExposure, action: Action): void {
    action.touched = exposure;
    action.history.exposureId = exposure.exposureId;
    this.#settle(exposure, action);
  }

  #pin(action: Action, exposure: KnownExposure): void {
    this.#pinned.set(pinKey(action), { exposureOffset: exposure.offset, endsAtMs: action.endsAtMs });
  }

  #run(task: Task): void {
    if (task.do === 'decide') this.#decideTouch(task.action);
    else if (task.do === 'emit') this.#emitPositive(task);
    else if (task.do === 'close') this.#close(task.exposure);
    else if (task.do === 'endAction') this.#endAction(task.action);
    else if (task.do === 'forget') this.#forget(task.exposure);
    else if (task.do === 'forgetAction') this.#seenActions.delete(task.id);
  }

  #emitPositive({ exposure, kind, action, appendTimeMs }: Task & { do: 'emit' }): void {
    if (!exposure.open || (kind === 'CLICK' ? exposure.clickLeft : exposure.buyLeft)) return;
    const firstPositive = !exposure.clickLeft && !exposure.buyLeft;
    if (kind === 'CLICK') exposure.clickLeft = true;
    else exposure.buyLeft = true;
    this.#emit(exposure, exposure.open.exposure, kind, firstPositive, action, appendTimeMs);
  }

  #close(exposure: KnownExposure): void {
    const { open } = exposure;
    if (!open) return;
    const isPositive = open.actions.length > 0;
    this.#emit(exposure, open.exposure, 'FINAL', isPositive && !this.#rules.emitPositives, null);
    exposure.open = null;
    this.#numOpen--;
  }

  #emit(
    { timeMs, open }: KnownExposure,
    exposure: Exposure,
    kind: 'CLICK' | 'BUY' | 'FINAL',
    firstPositive: boolean,
    upTo: CountedAction | null,
    causeMs = this.#reachedAtMs,
  ): void {
    const labels = labelExposure(timeMs, open?.actions ?? [], upTo);
    const sample = makeSample(exposure, kind, firstPositive, labels, this.#watermarkMs, {
      catalogue: this.#catalogue,
      histories: this.histories,
      requestOf: (exposureId) => this.#exposures.get(exposureId)?.requestId,
    });
    if (sample.sid === null) this.#counts.withoutSid++;
    this.#outputs.push({ kind: 'sample', sample, causeMs });
  }

  #endAction(action: Action): void {
    const { event } = action;
    if (event.exposureId === null) {
      remove(this.#touching, userItem(event.userId, event.itemId), action);
      this.#pinned.delete(pinKey(action));
      if (!action.done) this.#numWaiting--;
    } else this.#stopWaiting(event.exposureId, action);
    if (action.done) return;
    action.done = true;
    this.#reportLate(action.record, 'ORPHAN');
  }

  #stopWaiting(exposureId: string, action: Action): void {
    if (remove(this.#waiting, exposureId, action)) this.#numWaiting--;
  }

  #forget(exposure: KnownExposure): void {
    this.#exposures.delete(exposure.exposureId);
    remove(this.#exposuresOfUser, exposure.userId, exposure);
  }

  #rememberExposure({ exposureId, userId, itemId, eventTimeMs, requestId }: Exposure): void {
    this.histories.add(
      userId,
      'exposures',
      { id: exposureId, itemId, timeMs: eventTimeMs, exposureId, requestId },
      () => this.#historyCutoffMs(userId),
    );
  }

  #rememberAction(event: Click | Buy, kind: ActionKind): HistoryEntry {
    const { actionId, itemId, eventTimeMs, exposureId, userId } = event;
    const entry = { id: actionId, itemId, timeMs: eventTimeMs, exposureId, requestId: null };
    this.histories.add(userId, kind === 'CLICK' ? 'clicks' : 'buys', entry, () =>
      this.#historyCutoffMs(userId),
    );
    return entry;
  }

  /** No look-up for this user will be older: not for an open exposure, nor for one that may still come in time. */
  #historyCutoffMs(userId: string): number {
    let cutoffMs = this.#watermarkMs - this.#rules.windows.knownSpanMs;
    for (const exposure of this.#exposuresOfUser.get(userId) ?? [])
      if (exposure.open && exposure.requestTimeMs < cutoffMs) cutoffMs = exposure.requestTimeMs;
    return cutoffMs;
  }

  #schedule(atMs: number, task: Task, tie = 0): void {
    this.#timers.add(atMs, RANK[task.do], tie, task);
  }

  #reportLate(record: LogRecord, reason: LateReason): void {
    if (record.event === null) return;
    if (reason === 'LATE') this.#counts.late++;
    else this.#counts.orphans++;
    const { userId, eventTimeMs, exposureId } = record.event;
    this.#outputs.push({
      kind: 'late',
      event: {
        reason,
        topic: record.topic,
        partition: this.#partition,
        offset: record.offset,
        userId,
        exposureId,
        actionId: record.topic === 'exposures' ? null : record.event.actionId,
        eventTimeMs,
        watermarkMs: this.#watermarkMs,
        payload: record.payload ?? Buffer.alloc(0),
      },
    });
  }
}
