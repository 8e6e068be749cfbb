/** Millions of exposures without a minute spent on making them: a day's window of open ones, and what users did in the days before. */
import { topicType } from '@onemall/contracts';

export const START_MS = 1_767_225_600_000;
export const HOUR_MS = 3_600_000;
export const SCENARIO = 'product_card';
export const WINDOWS = { clickWindowMs: HOUR_MS, buyWindowMs: 24 * HOUR_MS };
export const GRACE_MS = 120_000;
export const OUT_OF_ORDERNESS_MS = 500;
const FLOATS = Array.from({ length: 36 }, (_, i) => i / 7);
const INTS = Array.from({ length: 20 }, (_, i) => i * 37);
const USER_STEP = 48_271;
const USER_MODULUS = 2_147_483_647;

export interface Visit {
  /** Counted over all. */
  exposure: number;
  user: number;
  timeMs: number;
}

/**
 * Users come by turns at random, the worst case for a cache; what they did is spread over two days, and so long ago (two
 * windows and more) that nothing but histories knows of it once the open ones are there.
 */
export const visitsBefore = (numUsers: number, count: number): Generator<Visit> =>
  visits(0, count, numUsers, START_MS - 100 * HOUR_MS, 48 * HOUR_MS);
/** Records and users are kept so much longer than windows ask for. */
export const LONGEST_OUTAGE_MS = 120 * HOUR_MS;
/** All of them are open at the end of their hour. */
export const openVisits = (numUsers: number, count: number, from: number): Generator<Visit> =>
  visits(from, count, numUsers, START_MS, HOUR_MS);

/** The same object each time. */
function* visits(
  from: number,
  count: number,
  numUsers: number,
  startMs: number,
  spanMs: number,
): Generator<Visit> {
  const visit = { exposure: 0, user: 0, timeMs: 0 };
  for (let i = 0, random = from + 1; i < count; i++) {
    random = (random * USER_STEP) % USER_MODULUS;
    visit.exposure = from + i;
    visit.user = random % numUsers;
    visit.timeMs = startMs + Math.floor((i / count) * spanMs);
    yield visit;
  }
}

export const userIdOf = (user: number): string => `U${user.toString(16).padStart(15, '0')}`;

/** One encoded exposure whose ids and times are written over for each event: making it anew would cost more than the join. */
export class ExposureSource {
  readonly #bytes: Buffer;
  readonly #at: { id: number; user: number; item: number; request: number; times: number[] };
  #seed = 1;

  constructor() {
    const long = (text: string): string => text.padEnd(16, '0');
    const ids = {
      exposureId: long('E'),
      userId: userIdOf(0),
      itemId: long('I').slice(0, 8),
      requestId: long('R'),
    };
    this.#bytes = topicType('exposures').toBuffer({
      ...ids,
      ...{ scenario: SCENARIO, eventTimeMs: START_MS, requestTimeMs: START_MS },
      ...{ position: 1, watchMs: null, priceCents: 1_999, requestFeatures: { ints: INTS, floats: FLOATS } },
    });
    const text = this.#bytes.toString('latin1');
    const time = avroLong(START_MS).toString('latin1');
    const first = text.indexOf(time);
    this.#at = {
      id: text.indexOf(ids.exposureId),
      user: text.indexOf(ids.userId),
      item: text.indexOf(ids.itemId),
      request: text.indexOf(ids.requestId),
      times: [first, text.indexOf(time, first + 1)],
    };
  }

  /** @returns the same bytes each time, with these in them */
  write({ exposure, user, timeMs }: Visit): Buffer {
    const { id, user: userAt, item, request, times } = this.#at;
    this.#seed = (Math.imul(this.#seed, 1_103_515_245) + 12_345) >>> 0;
    const hex = (value: number, length: number, at: number): void =>
      void this.#bytes.write(value.toString(16).padStart(length, '0'), at + 1, 'latin1');
    hex(exposure, 15, id);
    hex(user, 15, userAt);
    hex(this.#seed % 200_000, 7, item);
    hex(Math.floor(exposure / 4), 15, request);
    const time = avroLong(timeMs);
    for (const at of times) time.copy(this.#bytes, at);
    return this.#bytes;
  }
}

/** Six bytes for any time of these decades. */
function avroLong(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(6);
  let rest = value * 2;
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = (rest % 128) + (i < bytes.length - 1 ? 128 : 0);
    rest = Math.floor(rest / 128);
  }
  return bytes;
}
