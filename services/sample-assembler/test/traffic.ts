/**
 * Seeded traffic for tests: exposures with clicks and buys, in order of arrival. Disorder stays inside the bound
 * unless `lateShare` asks for more.
 */
import type { Buy, Click, Exposure } from '@onemall/contracts';
import { SeededRandom } from '@onemall/service-kit';

export const SCENARIOS = {
  product_card: { clickWindowMs: 2_000, buyWindowMs: 4_000 },
  short_video: { clickWindowMs: 3_000, buyWindowMs: 3_000 },
  live_stream: { clickWindowMs: 1_500, buyWindowMs: 5_000 },
};
export const GRACE_MS = 500;
export const OUT_OF_ORDERNESS_MS = 300;

export type LogEvent =
  | { topic: 'exposures'; value: Exposure }
  | { topic: 'clicks'; value: Click }
  | { topic: 'buys'; value: Buy };
/** An event and when it reaches the log, on the clock of event times. */
export type Arrival = LogEvent & { arrivesMs: number };

export interface TrafficOptions {
  seed: number;
  numRequests: number;
  startMs: number;
  requestEveryMs?: number;
  numUsers?: number;
  numItems?: number;
  copyShare?: number;
  /** Actions that name no exposure. */
  unnamedShare?: number;
  /** Events further behind than the bound. */
  lateShare?: number;
  /** Actions of exposures that never come. */
  orphanShare?: number;
}

export function makeTraffic(options: TrafficOptions): Arrival[] {
  const o = {
    requestEveryMs: 20,
    numUsers: 12,
    numItems: 15,
    copyShare: 0.05,
    unnamedShare: 0.2,
    lateShare: 0,
    orphanShare: 0.02,
    ...options,
  };
  const random = new SeededRandom(o.seed);
  const arrivals: Arrival[] = [];
  const arrive = (event: LogEvent): void => {
    const delayMs =
      random.next() < o.lateShare ? 400 + random.int(9_000) : random.int(OUT_OF_ORDERNESS_MS - 1);
    arrivals.push({ ...event, arrivesMs: event.value.eventTimeMs + delayMs });
    if (random.next() < o.copyShare)
      arrivals.push({ ...event, arrivesMs: event.value.eventTimeMs + delayMs + random.int(8_000) });
  };
  const scenarios = Object.keys(SCENARIOS) as (keyof typeof SCENARIOS)[];
  for (let r = 0; r < o.numRequests; r++) {
    const userId = `user-${random.int(o.numUsers)}`;
    const scenario = random.pick(scenarios);
    const requestTimeMs = o.startMs + r * o.requestEveryMs + random.int(o.requestEveryMs);
    const requestId = `r${o.seed}-${r}`;
    const numPositions = 1 + random.int(3);
    for (let position = 0; position < numPositions; position++) {
      const itemId = `item-${random.int(o.numItems)}`;
      const exposureId = `${requestId}:${position}`;
      const eventTimeMs = requestTimeMs + random.int(50);
      const isMissing = random.next() < o.orphanShare;
      if (!isMissing)
        arrive({
          topic: 'exposures',
          value: {
            exposureId,
            userId,
            itemId,
            scenario,
            eventTimeMs,
            requestId,
            requestTimeMs,
            position,
            watchMs: random.int(2) === 0 ? null : random.int(5_000),
            priceCents: 100 + random.int(9_000),
            requestFeatures: { ints: [random.int(10)], floats: [random.int(100) / 4] },
          },
        });
      const named = (): string | null => (random.next() < o.unnamedShare && !isMissing ? null : exposureId);
      const { clickWindowMs, buyWindowMs } = SCENARIOS[scenario];
      const numClicks = random.next() < 0.4 ? 1 + random.int(2) : 0;
      for (let c = 0; c < numClicks; c++)
        arrive({
          topic: 'clicks',
          value: {
            actionId: `c-${exposureId}-${c}`,
            exposureId: named(),
            userId,
            itemId,
            // Now and then a little before its exposure, or past the window.
            eventTimeMs: eventTimeMs - 50 + random.int(clickWindowMs + 100),
          },
        });
      const numBuys = random.next() < 0.2 ? 1 + random.int(2) : 0;
      for (let b = 0; b < numBuys; b++)
        arrive({
          topic: 'buys',
          value: {
            actionId: `b-${exposureId}-${b}`,
            exposureId: named(),
            userId,
            itemId,
            eventTimeMs: eventTimeMs + random.int(buyWindowMs + 50),
            priceCents: 100 + random.int(9_000),
            quantity: 1 + random.int(3),
          },
        });
    }
  }
  // Equal arrival times keep the order in which they were made.
  return arrivals.sort((a, b) => a.arrivesMs - b.arrivesMs);
}
