/**
 * Events as the Kafka Streams peer's generator makes them: 20 ints and 36 floats an exposure, 8 % clicked, 1.5 % bought,
 * 1 % copies, up to `jitterMs` out of order. Only users are fewer, so that histories fill.
 */
import { topicType } from '@onemall/contracts';
import type { KafkaIo, RawOutRecord } from '@onemall/kafka-io';
import { SeededRandom } from '@onemall/service-kit';

export const LOGS = ['exposures', 'clicks', 'buys'] as const;
export type Log = (typeof LOGS)[number];
export const SCENARIOS = ['product_card', 'short_video', 'live_stream'];

export interface LoadPlan {
  seed: number;
  exposures: number;
  users: number;
  startMs: number;
  spanMs: number;
  jitterMs: number;
  clickWindowMs: number;
  buyWindowMs: number;
}

export interface MadeEvent {
  topic: Log;
  userId: string;
  timeMs: number;
  arrivalMs: number;
  value: Buffer;
}

/** In order of arrival. */
export function makeEvents(plan: LoadPlan, headers: Readonly<Record<Log, Buffer>>): MadeEvent[] {
  const random = new SeededRandom(plan.seed);
  const events: MadeEvent[] = [];
  const add = (topic: Log, userId: string, timeMs: number, value: object): void => {
    const bytes = Buffer.concat([headers[topic], topicType(topic).toBuffer(value)]);
    const event = { topic, userId, timeMs, arrivalMs: timeMs + random.int(plan.jitterMs), value: bytes };
    events.push(event);
    if (random.next() < 0.01)
      events.push({ ...event, arrivalMs: event.arrivalMs + random.int(plan.jitterMs) });
  };
  const late = (meanMs: number, maxMs: number): number =>
    Math.min(maxMs, Math.floor(-Math.log(1 - random.next()) * meanMs));
  for (let i = 0; i < plan.exposures; i++) {
    const timeMs = plan.startMs + Math.floor((plan.spanMs * i) / plan.exposures);
    const userId = `u${random.int(plan.users)}`;
    const itemId = `i${random.int(200_000)}`;
    const exposureId = ((BigInt(i) * 0x9e3779b97f4a7c15n) & 0xffffffffffffffffn)
      .toString(16)
      .padStart(16, '0');
    add('exposures', userId, timeMs, {
      exposureId,
      userId,
      itemId,
      scenario: SCENARIOS[i % 3],
      eventTimeMs: timeMs,
      requestId: `r${Math.floor(i / 4)}`,
      requestTimeMs: timeMs,
      position: i % 4,
      watchMs: null,
      priceCents: 100,
      requestFeatures: {
        ints: Array.from({ length: 20 }, (_, k) => random.int(1 << (6 + (k % 3) * 6))),
        floats: Array.from({ length: 36 }, () => (random.int(16_384) - 8_192) / 64),
      },
    });
    const isClicked = random.next() < 0.08;
    const clickMs =
      timeMs + Math.min(plan.clickWindowMs, 200 + late(plan.clickWindowMs / 12, plan.clickWindowMs));
    const action = { exposureId, userId, itemId };
    if (isClicked)
      add('clicks', userId, clickMs, { ...action, actionId: `c${exposureId}`, eventTimeMs: clickMs });
    if (random.next() >= (isClicked ? 0.1475 : 0.0029)) continue;
    const fromMs = isClicked ? clickMs : timeMs + 300;
    const buyMs = Math.min(
      timeMs + plan.buyWindowMs,
      fromMs + 500 + late(plan.buyWindowMs / 6, plan.buyWindowMs),
    );
    add('buys', userId, buyMs, {
      ...action,
      actionId: `b${exposureId}`,
      eventTimeMs: buyMs,
      priceCents: 100 + random.int(50_000),
      quantity: 1 + random.int(2),
    });
  }
  return events.sort((a, b) => a.arrivalMs - b.arrivalMs);
}

/** One exposure far ahead for each partition, which lets everything before it close. */
export function flushEvents(atMs: number, header: Buffer, numPartitions: number): RawOutRecord[] {
  return Array.from({ length: numPartitions }, (_, partition) => {
    const id = `flush-${partition}`;
    const value = topicType('exposures').toBuffer({
      ...{ exposureId: id, userId: id, itemId: id, requestId: id, scenario: SCENARIOS[0] },
      ...{ eventTimeMs: atMs, requestTimeMs: atMs, position: 0, watchMs: null, priceCents: 0 },
      requestFeatures: { ints: [], floats: [] },
    });
    return { topic: 'exposures', key: id, valueBytes: Buffer.concat([header, value]), partition };
  });
}

/** Writes everything, a chunk at a time. */
export async function load(io: KafkaIo, events: readonly MadeEvent[], flush: RawOutRecord[]): Promise<void> {
  const writer = await io.openWriter();
  const CHUNK = 10_000;
  for (let at = 0; at < events.length; at += CHUNK)
    await writer.send(
      events
        .slice(at, at + CHUNK)
        .map(({ topic, userId, value }) => ({ topic, key: userId, valueBytes: value })),
    );
  await writer.send(flush);
  await writer.close();
}
