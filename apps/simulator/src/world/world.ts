/**
 * A simulated mall: the same spec and settings give the same records, byte for byte, in the same order.
 * Pure: it reads no clock; time moves as records are taken.
 */
import type { Buy, Click, Exposure, Item, RequestFeatures } from '@onemall/contracts';
import { SeededRandom } from '@onemall/service-kit';
import { Agenda } from './agenda.ts';
import { type Arm, type Ask, armOf, pageOfAnswer, taggedId } from './arms.ts';
import { Catalogue } from './catalogue.ts';
import { type Disorder, drawHandover } from './disorder.ts';
import { streamSeed } from './latent.ts';
import { choosePage, type ScenarioName } from './logging-policy.ts';
import { type RoomRecord, Rooms } from './rooms.ts';
import { scenarioTable } from './scenarios.ts';
import type { WorldSpec } from './spec.ts';
import {
  affinity,
  buyProbability,
  clickProbability,
  type TrueScore,
  TWO_PIECES,
  trueScore,
} from './truth.ts';
import { type User, Users } from './users.ts';

const STREAM = { traffic: 20, rooms: 21, disorder: 22 } as const;
/** No click or buy comes later than this share of its window. */
const LATEST_SHARE = 0.9;
/** Room changes take at most this share of the events. */
const MAX_CHANGE_SHARE = 0.25;

export interface WorldSettings {
  seed: number;
  /** Numbers the starts of the process on one log: same tastes and catalogue, new intents and ids. */
  run: number;
  /** Part of every id of this run. */
  runId: string;
  /** Event time of the first request. */
  startMs: number;
  /** Log events and room changes per second of event time. */
  eventsPerS: number;
  scenarios: Readonly<Record<string, { clickWindowMs: number; buyWindowMs: number }>>;
  disorder: Disorder;
  /** Policies under test, whose requests wait for `answer`; none by default. */
  arms?: readonly Arm[];
  /** Requests that the arms may answer, by number from 0: [from, until). All by default. */
  armRequests?: { from: number; until: number };
}

export type LogRecord =
  | { topic: 'exposures'; key: string; value: Exposure }
  | { topic: 'clicks'; key: string; value: Click }
  | { topic: 'buys'; key: string; value: Buy };
export type WorldRecord = LogRecord | RoomRecord;

/** What the world knows of a request and the log does not show: for evaluation. */
export interface RequestTruth {
  requestId: string;
  userId: string;
  scenario: ScenarioName;
  requestTimeMs: number;
  /** Copy of what the user wanted, a unit vector of the latent space. */
  want: Float32Array;
}

export interface WorldCounts {
  requests: number;
  exposures: number;
  clicks: number;
  buys: number;
  productChanges: number;
  duplicates: number;
  late: number;
  withoutExposureId: number;
}

interface PendingRequest {
  requestId: string;
  user: User;
  scenario: { name: ScenarioName; clickWindowMs: number; buyWindowMs: number };
  at: number;
}

type Entry = { what: 'request' } | { what: 'room'; row: number } | { what: 'record'; record: WorldRecord };

export class World {
  readonly spec: WorldSpec;
  readonly catalogue: Catalogue;
  readonly users: Users;
  readonly rooms: Rooms;
  readonly counts: WorldCounts = {
    requests: 0,
    exposures: 0,
    clicks: 0,
    buys: 0,
    productChanges: 0,
    duplicates: 0,
    late: 0,
    withoutExposureId: 0,
  };
  /** Called for each request before its records. */
  onRequest: ((truth: RequestTruth) => void) | undefined;
  readonly #settings: WorldSettings;
  readonly #agenda = new Agenda<Entry>();
  readonly #traffic: SeededRandom;
  readonly #roomsRandom: SeededRandom;
  readonly #disorder: SeededRandom;
  readonly #scenarios: { name: ScenarioName; upTo: number; clickWindowMs: number; buyWindowMs: number }[];
  readonly #changeEveryMs: number;
  /** Time that room changes have taken from the requests. */
  #owedMs = 0;
  #requestsFromMs: number;
  #actions = 0;
  /** A request that a policy is to answer before anything else happens. */
  #asked: (PendingRequest & { arm: string }) | undefined;

  /** @throws Error if none of the configured scenarios exists in the world */
  constructor(spec: WorldSpec, settings: WorldSettings) {
    this.spec = spec;
    this.#settings = settings;
    const { seed, run, startMs, eventsPerS } = settings;
    this.catalogue = new Catalogue(spec, seed);
    this.users = new Users(spec, this.catalogue.topics, seed, run);
    const stream = (kind: number): SeededRandom => new SeededRandom(streamSeed(seed, kind, run));
    this.#traffic = stream(STREAM.traffic);
    this.#roomsRandom = stream(STREAM.rooms);
    this.#disorder = stream(STREAM.disorder);
    this.rooms = new Rooms(this.catalogue, this.#roomsRandom, settings.runId);
    this.#scenarios = scenarioTable(spec, settings.scenarios);
    this.#changeEveryMs = Math.max(
      spec.rooms.changeEveryMs,
      (spec.liveRooms * 1000) / (MAX_CHANGE_SHARE * eventsPerS),
    );
    this.#requestsFromMs = startMs;
    this.#agenda.add(startMs, { what: 'request' });
  }

  /** Product cards and short videos of the configured scenarios; cards are always there, since videos and rooms sell them. */
  *items(validFromMs: number): Generator<Item> {
    const videos = this.#scenarios.some((s) => s.name === 'short_video');
    const end = videos ? this.catalogue.size : this.catalogue.numProducts;
    for (let i = 0; i < end; i++) yield this.catalogue.item(i, validFromMs);
  }

  /** Opens the live rooms and lets them change from now on. Call once, before the traffic. */
  openRooms(nowMs: number): RoomRecord[] {
    if (!this.#scenarios.some((s) => s.name === 'live_stream')) return [];
    const records: RoomRecord[] = [];
    for (let row = 0; row < this.spec.liveRooms; row++) {
      for (const record of this.rooms.start(row, nowMs)) records.push(record);
      this.#agenda.add(nowMs + this.#roomsRandom.exponential(this.#changeEveryMs), { what: 'room', row });
    }
    return records;
  }

  /** Time at which the next record is handed over, or at which the request came that waits for an answer. */
  nextAtMs(): number {
    this.#runUntilRecord();
    return this.#asked ? this.#asked.at : this.#agenda.nextAt;
  }

  /** The request that waits for an answer, if what comes next is one. */
  asks(): Ask | undefined {
    this.#runUntilRecord();
    if (!this.#asked) return undefined;
    const { arm, requestId, user, scenario, at } = this.#asked;
    return { arm, requestId, userId: user.id, scenario: scenario.name, requestTimeMs: Math.round(at) };
  }

  /**
   * Shows the items that the policy named and tags the request with its arm. Without an item that exists the logging policy
   * serves the page, and the request bears no tag.
   * @returns whether the policy's items were shown
   */
  answer(itemIds: readonly string[]): boolean {
    const asked = this.#asked;
    if (!asked) throw new Error('No request waits for an answer: call asks() first');
    this.#asked = undefined;
    const { catalogue, rooms, spec } = this;
    const page = pageOfAnswer(catalogue, rooms, asked.scenario.name, itemIds, spec.positions);
    if (page.length === 0) this.#serve(asked);
    else this.#showPage({ ...asked, requestId: taggedId(asked.requestId, asked.arm) }, page);
    return page.length > 0;
  }

  /** The next record in order of being handed over. @throws Error while a request waits for an answer */
  next(): WorldRecord {
    this.#runUntilRecord();
    if (this.#asked) throw new Error('A request waits for an answer: answer it before the next record');
    const entry = this.#agenda.take();
    if (entry.what !== 'record') throw new Error('The next entry of the agenda is a record by now');
    return entry.record;
  }

  /** Leaves out requests before this time: for a process that fell behind its clock. */
  skipTo(ms: number): void {
    this.#requestsFromMs = Math.max(this.#requestsFromMs, ms);
  }

  /** What the user wants now, for `trueScores`. */
  wantOf(userId: string): Float32Array {
    return this.users.byId(userId).want.slice();
  }

  /**
   * The oracle: true propensities of items for a user at position 0.
   * @param want what the user wanted at the request (RequestTruth.want or wantOf)
   * @throws Error for an unknown user; an unknown item or a room that is not open has null
   */
  trueScores(userId: string, itemIds: readonly string[], want: Float32Array): (TrueScore | null)[] {
    const user = this.users.byId(userId);
    return itemIds.map((itemId) => {
      const index = this.catalogue.indexOf(itemId);
      const room = index < 0 ? this.rooms.byId(itemId) : undefined;
      if (index < 0 && !room) return null;
      const shown = room ? this.rooms.shown(room) : this.catalogue.shown(index);
      const priceCents = room ? this.rooms.priceCents(room) : this.catalogue.priceCents[index]!;
      return trueScore(this.spec, user, want, shown, priceCents);
    });
  }

  #runUntilRecord(): void {
    while (!this.#asked) {
      const entry = this.#agenda.peek();
      if (!entry || entry.what === 'record') return;
      const at = this.#agenda.nextAt;
      this.#agenda.take();
      if (entry.what === 'room') this.#changeRoom(entry.row, at);
      else this.#request(at);
    }
  }

  #changeRoom(row: number, at: number): void {
    for (const record of this.rooms.change(row, Math.round(at))) {
      this.#agenda.add(at, { what: 'record', record });
      this.counts.productChanges++;
      this.#owedMs += 1000 / this.#settings.eventsPerS;
    }
    const wait = this.#roomsRandom.exponential(this.#changeEveryMs);
    this.#agenda.add(at + wait, { what: 'room', row });
  }

  #request(at: number): void {
    if (at < this.#requestsFromMs) {
      this.#agenda.add(this.#requestsFromMs, { what: 'request' });
      return;
    }
    const draw = this.#traffic.next();
    const scenario = this.#scenarios.find((s) => draw < s.upTo) ?? this.#scenarios.at(-1)!;
    const user = this.users.draw(this.#traffic);
    this.users.live(user);
    const n = this.counts.requests++;
    const requestId = `r${this.#settings.runId}-${n}`;
    const { arms = [], armRequests = { from: 0, until: Number.POSITIVE_INFINITY } } = this.#settings;
    const arm = n >= armRequests.from && n < armRequests.until ? armOf(requestId, arms) : null;
    if (arm === null) this.#serve({ requestId, user, scenario, at });
    else this.#asked = { requestId, user, scenario, at, arm };
  }

  /** By the logging policy. */
  #serve(request: PendingRequest): void {
    const { catalogue, rooms, spec } = this;
    const { user, scenario } = request;
    this.#showPage(request, choosePage(catalogue, rooms, user, scenario.name, spec.positions, this.#traffic));
  }

  #showPage({ requestId, user, scenario, at }: PendingRequest, page: readonly number[]): void {
    const before = this.counts.exposures + this.counts.clicks + this.counts.buys + this.counts.duplicates;
    const requestTimeMs = Math.round(at);
    this.onRequest?.({
      requestId,
      userId: user.id,
      scenario: scenario.name,
      requestTimeMs,
      want: user.want.slice(),
    });
    for (let position = 0; position < page.length; position++)
      this.#show(user, scenario, page[position]!, position, requestId, at);
    const made =
      this.counts.exposures + this.counts.clicks + this.counts.buys + this.counts.duplicates - before;
    const waitMs = (Math.max(1, made) * 1000) / this.#settings.eventsPerS + this.#owedMs;
    this.#owedMs = 0;
    this.#agenda.add(at + waitMs, { what: 'request' });
  }

  #show(
    user: User,
    scenario: { name: ScenarioName; clickWindowMs: number; buyWindowMs: number },
    choice: number,
    position: number,
    requestId: string,
    at: number,
  ): void {
    const random = this.#traffic;
    const live = scenario.name === 'live_stream';
    const room = live ? this.rooms.open[choice]! : undefined;
    const shown = room ? this.rooms.shown(room) : this.catalogue.shown(choice);
    const itemId = room ? room.liveId : this.catalogue.itemId(choice);
    const priceCents = room ? this.rooms.priceCents(room) : this.catalogue.priceCents[choice]!;
    const match = affinity(this.spec, user.want, shown);
    const exposureId = `${requestId}:${position}`;
    const eventTimeMs = Math.round(at);
    const exposure: Exposure = {
      exposureId,
      userId: user.id,
      itemId,
      scenario: scenario.name,
      eventTimeMs,
      requestId,
      requestTimeMs: eventTimeMs,
      position,
      watchMs:
        scenario.name === 'product_card'
          ? null
          : Math.round(15_000 * Math.exp(1.5 * match + 0.8 * random.normal())),
      priceCents,
      requestFeatures: requestFeatures(user.index, eventTimeMs),
    };
    this.counts.exposures++;
    user.events++;
    this.#log(at, { topic: 'exposures', key: user.id, value: exposure });

    if (random.next() >= clickProbability(this.spec, user, shown, position, match)) return;
    const { clickShare, buyShare } = this.spec.delays;
    const clickDelayMs = delay(clickShare, scenario.clickWindowMs, random);
    this.counts.clicks++;
    user.events++;
    this.#log(at + clickDelayMs, {
      topic: 'clicks',
      key: user.id,
      value: {
        actionId: `c${this.#settings.runId}-${this.#actions++}`,
        exposureId: this.#sayExposure(exposureId),
        userId: user.id,
        itemId,
        eventTimeMs: Math.round(at + clickDelayMs),
      },
    });

    if (random.next() >= buyProbability(this.spec, user, shown, match)) return;
    const latestMs = LATEST_SHARE * scenario.buyWindowMs;
    const buyDelayMs = Math.min(
      Math.max(latestMs, clickDelayMs),
      clickDelayMs + delay(buyShare, scenario.buyWindowMs, random),
    );
    this.counts.buys++;
    user.events++;
    this.#log(at + buyDelayMs, {
      topic: 'buys',
      key: user.id,
      value: {
        actionId: `b${this.#settings.runId}-${this.#actions++}`,
        exposureId: this.#sayExposure(exposureId),
        userId: user.id,
        itemId,
        eventTimeMs: Math.round(at + buyDelayMs),
        priceCents,
        quantity: random.next() < 1 - TWO_PIECES ? 1 : 2,
      },
    });
  }

  #sayExposure(exposureId: string): string | null {
    if (this.#disorder.next() >= this.#settings.disorder.missingExposureIdShare) return exposureId;
    this.counts.withoutExposureId++;
    return null;
  }

  #log(at: number, record: LogRecord): void {
    const handover = drawHandover(this.#settings.disorder, this.#disorder);
    if (handover.late) this.counts.late++;
    this.#agenda.add(at + handover.delayMs, { what: 'record', record });
    if (handover.copyAfterMs === null) return;
    this.counts.duplicates++;
    this.#agenda.add(at + handover.delayMs + handover.copyAfterMs, { what: 'record', record });
  }
}

/** What the server logs with a request: the user's device and the hour of the day. */
export const requestFeatures = (userIndex: number, timeMs: number): RequestFeatures => ({
  ints: [userIndex % 3, Math.floor(timeMs / 3_600_000) % 24],
  floats: [],
});

const delay = (meanShare: number, windowMs: number, random: SeededRandom): number =>
  Math.min(LATEST_SHARE * windowMs, random.exponential(meanShare * windowMs));
