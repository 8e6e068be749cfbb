/**
 * The log of a world in columns, as far as it has been taken, and the world itself as it is at the newest request: models
 * train on the columns, and are judged request by request while the world stands still.
 */
import type { Buy, Click, Exposure, HistoryEvent, UserHistory } from '@onemall/contracts';
import {
  IN_ORDER,
  Oracle,
  requestFeatures,
  type ScenarioName,
  World,
  type WorldRecord,
} from '@onemall/simulator/world';
import { Column } from './columns.ts';
import type { EvaluationPlan } from './plan.ts';
import { type RoomFacts, RoomTimeline } from './room-timeline.ts';

export const SCENARIOS: readonly ScenarioName[] = ['product_card', 'short_video', 'live_stream'];
const RUN_ID = 'e';
const KINDS = ['exposures', 'clicks', 'buys'] as const;
type Kind = (typeof KINDS)[number];

/**
 * Items are numbers: product cards and videos by their index in the catalogue, room number n as catalogue.size + n.
 * Requests and exposures are rows; the exposures of a request lie side by side.
 */
export class WorldLog {
  readonly plan: EvaluationPlan;
  readonly world: World;
  readonly oracle: Oracle;
  readonly rooms = new RoomTimeline();
  readonly requests = {
    user: Column.ints(),
    scenario: Column.ints(),
    timeMs: Column.doubles(),
    firstExposure: Column.ints(),
  };
  readonly exposures = {
    request: Column.ints(),
    item: Column.ints(),
    priceCents: Column.ints(),
    watchMs: Column.ints(),
    /** Event time; 0 for none. */
    clickMs: Column.doubles(),
    buyMs: Column.doubles(),
    buyPriceCents: Column.ints(),
    buyQuantity: Column.ints(),
    /** Numbers of the actions' ids. */
    clickId: Column.ints(),
    buyId: Column.ints(),
  };
  /** Rows of clicked exposures in the order of their clicks. */
  readonly clicked = Column.ints();
  /** What the user of the newest request wanted then, a unit vector of the latent space. */
  newestWant: Float32Array = new Float32Array(0);
  /** By user, rows of exposures in order of (event time, id of the event). */
  readonly #events: Record<Kind, Map<number, number[]>> = {
    exposures: new Map(),
    clicks: new Map(),
    buys: new Map(),
  };
  readonly #facts = new Map<number, RoomFacts>();

  constructor(plan: EvaluationPlan) {
    this.plan = plan;
    const { seed, startMs, eventsPerS, scenarios, spec } = plan;
    this.world = new World(spec, {
      seed,
      run: 0,
      runId: RUN_ID,
      startMs,
      eventsPerS,
      scenarios,
      // disorder is the join's matter: a log that is joined exactly gives the same samples in any order
      disorder: IN_ORDER,
    });
    this.oracle = new Oracle(this.world);
    this.world.onRequest = ({ userId, scenario, requestTimeMs, want }) => {
      this.requests.user.push(userIndex(userId));
      this.requests.scenario.push(SCENARIOS.indexOf(scenario));
      this.requests.timeMs.push(requestTimeMs);
      this.requests.firstExposure.push(this.exposures.item.length);
      this.newestWant = want;
    };
    for (const record of this.world.openRooms(startMs)) this.#take(record);
  }

  get numRequests(): number {
    return this.requests.timeMs.length;
  }
  get numExposures(): number {
    return this.exposures.item.length;
  }
  /** Items by number: the catalogue, then the rooms so far. */
  get numItems(): number {
    return this.world.catalogue.size + this.rooms.facts.length;
  }

  /**
   * Takes records until one more request is complete. Until the next call `world` and `oracle` are as of that request.
   * @returns its row
   */
  nextRequest(): number {
    const before = this.numRequests;
    while (this.numRequests === before || this.numExposures < this.world.counts.exposures)
      this.#take(this.world.next());
    return this.numRequests - 1;
  }

  /** Takes the records up to a moment, requests among them; the world is then as of no request. */
  takeUntil(timeMs: number): void {
    while (this.world.nextAtMs() <= timeMs) this.#take(this.world.next());
  }

  itemId(item: number): string {
    const { catalogue } = this.world;
    return item < catalogue.size ? catalogue.itemId(item) : `live-${RUN_ID}-${item - catalogue.size}`;
  }
  /** @throws Error for an id that is not of this log */
  itemNumber(itemId: string): number {
    const { catalogue } = this.world;
    const item = itemId.startsWith('live-')
      ? catalogue.size + Number(itemId.slice(itemId.lastIndexOf('-') + 1))
      : catalogue.indexOf(itemId);
    if (!(item >= 0 && item < this.numItems)) throw new Error(`${itemId} is no item of this log`);
    return item;
  }
  scenarioOf(item: number): ScenarioName {
    const { catalogue } = this.world;
    if (item >= catalogue.size) return 'live_stream';
    return item < catalogue.numProducts ? 'product_card' : 'short_video';
  }
  /** The item's record; of a room as it opened. */
  facts(item: number): RoomFacts {
    const { catalogue } = this.world;
    if (item >= catalogue.size) return this.rooms.facts[item - catalogue.size]!;
    let facts = this.#facts.get(item);
    if (!facts) {
      facts = { ...catalogue.facts(item), validFromMs: this.plan.startMs };
      this.#facts.set(item, facts);
    }
    return facts;
  }
  /** Products that a room sells at a moment; empty for any other item. */
  sellingItemIds(item: number, timeMs: number): string[] {
    const room = item - this.world.catalogue.size;
    if (room < 0) return [];
    const version = this.rooms.versionAt(room, timeMs);
    return version < 0 ? [] : Array.from(this.rooms.products(version), (p) => this.world.catalogue.itemId(p));
  }
  /** Item numbers of the open rooms, by the row that the oracle knows them by. */
  openRooms(): Int32Array {
    const { catalogue, rooms } = this.world;
    return Int32Array.from(rooms.open, (room) => catalogue.size + roomNumber(room.liveId));
  }

  /** Item numbers of the rooms that were open at a moment; at the newest request the same rooms as `openRooms`. */
  roomsAt(timeMs: number): number[] {
    const open: number[] = [];
    for (let room = 0; room < this.rooms.facts.length; room++) {
      const version = this.rooms.versionAt(room, timeMs);
      if (version >= 0 && this.rooms.products(version).length > 0)
        open.push(this.world.catalogue.size + room);
    }
    return open;
  }

  requestId(request: number): string {
    return `r${RUN_ID}-${request}`;
  }
  scenario(request: number): ScenarioName {
    return SCENARIOS[this.requests.scenario.at(request)]!;
  }
  /** Rows of a request's exposures: [from, to). */
  exposuresOf(request: number): readonly [from: number, to: number] {
    const { firstExposure } = this.requests;
    const to = request + 1 < this.numRequests ? firstExposure.at(request + 1) : this.numExposures;
    return [firstExposure.at(request), to];
  }

  exposure(row: number): Exposure {
    const request = this.exposures.request.at(row);
    const user = this.requests.user.at(request);
    const timeMs = this.requests.timeMs.at(request);
    const position = row - this.requests.firstExposure.at(request);
    const scenario = this.scenario(request);
    return {
      exposureId: `${this.requestId(request)}:${position}`,
      userId: `u${user}`,
      itemId: this.itemId(this.exposures.item.at(row)),
      scenario,
      eventTimeMs: timeMs,
      requestId: this.requestId(request),
      requestTimeMs: timeMs,
      position,
      watchMs: scenario === 'product_card' ? null : this.exposures.watchMs.at(row),
      priceCents: this.exposures.priceCents.at(row),
      requestFeatures: requestFeatures(user, timeMs),
    };
  }

  /** What the user did before the request, newest first, at most `length` of each (see the assembler's UserHistories). */
  historyBefore(request: number, length: number): UserHistory {
    const history: Record<Kind, HistoryEvent[]> = { exposures: [], clicks: [], buys: [] };
    const beforeMs = this.requests.timeMs.at(request);
    for (const kind of KINDS) {
      const rows = this.#events[kind].get(this.requests.user.at(request)) ?? [];
      const timeOf = this.#timeOf(kind);
      let at = countBefore(rows, timeOf, beforeMs);
      for (; at > 0 && history[kind].length < length; at--) {
        const row = rows[at - 1]!;
        if (this.exposures.request.at(row) === request) continue;
        const item = this.exposures.item.at(row);
        history[kind].push({
          itemId: this.itemId(item),
          eventTimeMs: timeOf(row),
          category: this.facts(item).category,
        });
      }
    }
    return history;
  }

  #take(record: WorldRecord): void {
    if (record.topic === 'exposures') this.#takeExposure(record.value);
    else if (record.topic === 'clicks') this.#takeClick(record.value);
    else if (record.topic === 'buys') this.#takeBuy(record.value);
    else if (record.topic === 'items') {
      const { category, tags, priceCents, sellerId, validFromMs } = record.value;
      this.rooms.open({ category, tags, priceCents, sellerId, validFromMs });
    } else {
      // the world has made the whole change by now, so a room that opens is there with all its products
      const { liveId, kind, eventTimeMs } = record.value;
      const room = kind === 'ROOM_ENDED' ? undefined : this.world.rooms.byId(liveId);
      this.rooms.change(roomNumber(liveId), eventTimeMs, room?.products ?? [], room?.explaining ?? -1);
    }
  }

  #takeExposure(e: Exposure): void {
    const columns = this.exposures;
    const row = columns.request.push(this.numRequests - 1);
    columns.item.push(this.itemNumber(e.itemId));
    columns.priceCents.push(e.priceCents);
    columns.watchMs.push(e.watchMs ?? 0);
    for (const column of [columns.clickMs, columns.buyMs]) column.push(0);
    for (const column of [columns.buyPriceCents, columns.buyQuantity, columns.clickId, columns.buyId])
      column.push(0);
    this.#remember('exposures', e.userId, row);
  }

  #takeClick(c: Click): void {
    const row = this.#rowOf(c);
    this.exposures.clickMs.set(row, c.eventTimeMs);
    this.exposures.clickId.set(row, actionNumber(c.actionId));
    this.clicked.push(row);
    this.#remember('clicks', c.userId, row);
  }

  #takeBuy(b: Buy): void {
    const row = this.#rowOf(b);
    this.exposures.buyMs.set(row, b.eventTimeMs);
    this.exposures.buyPriceCents.set(row, b.priceCents);
    this.exposures.buyQuantity.set(row, b.quantity);
    this.exposures.buyId.set(row, actionNumber(b.actionId));
    this.#remember('buys', b.userId, row);
  }

  #rowOf({ exposureId, actionId }: Click | Buy): number {
    if (exposureId === null) throw new Error(`Action ${actionId} of an orderly log names no exposure`);
    const [requestId, position] = exposureId.split(':') as [string, string];
    const request = Number(requestId.slice(RUN_ID.length + 2));
    return this.requests.firstExposure.at(request) + Number(position);
  }

  /** Keeps a user's events in the order in which the join keeps them: by event time, then by id as text. */
  #remember(kind: Kind, userId: string, row: number): void {
    const user = userIndex(userId);
    const rows = this.#events[kind].get(user) ?? [];
    if (rows.length === 0) this.#events[kind].set(user, rows);
    let at = rows.length;
    while (at > 0 && this.#comesAfter(kind, rows[at - 1]!, row)) at--;
    rows.splice(at, 0, row);
  }

  #comesAfter(kind: Kind, a: number, b: number): boolean {
    const timeOf = this.#timeOf(kind);
    const [ta, tb] = [timeOf(a), timeOf(b)];
    return ta > tb || (ta === tb && this.#eventId(kind, a) > this.#eventId(kind, b));
  }
  #timeOf(kind: Kind): (row: number) => number {
    const { clickMs, buyMs, request } = this.exposures;
    if (kind === 'clicks') return (row) => clickMs.at(row);
    if (kind === 'buys') return (row) => buyMs.at(row);
    return (row) => this.requests.timeMs.at(request.at(row));
  }
  #eventId(kind: Kind, row: number): string {
    if (kind === 'clicks') return `c${RUN_ID}-${this.exposures.clickId.at(row)}`;
    if (kind === 'buys') return `b${RUN_ID}-${this.exposures.buyId.at(row)}`;
    const request = this.exposures.request.at(row);
    return `${this.requestId(request)}:${row - this.requests.firstExposure.at(request)}`;
  }
}

const userIndex = (userId: string): number => Number(userId.slice(1));
const roomNumber = (liveId: string): number => Number(liveId.slice(liveId.lastIndexOf('-') + 1));
const actionNumber = (actionId: string): number => Number(actionId.slice(actionId.lastIndexOf('-') + 1));

/** How many rows of an ascending list have a time below beforeMs. */
function countBefore(rows: readonly number[], timeOf: (row: number) => number, beforeMs: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (timeOf(rows[middle]!) < beforeMs) low = middle + 1;
    else high = middle;
  }
  return low;
}
