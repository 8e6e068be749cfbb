/** Retention overtakes one partition: its reading moves to the earliest record, that of the others stays where it is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RewardBatch, TopicName } from '@onemall/contracts';
import {
  type FetchedPartition,
  type KafkaIo,
  type LogReader,
  OffsetOutOfRangeError,
  type Position,
  type RawRecord,
} from '@onemall/kafka-io';
import { createLogger, StageMeter } from '@onemall/service-kit';
import { DeadLetters } from '../src/adapters/dead-letters.ts';
import { RewardFeed } from '../src/adapters/reward-feed.ts';
import { SampleFeed } from '../src/adapters/sample-feed.ts';
import { rewardGroup, SCENARIOS, sample } from './synthetic.ts';

const log = createLogger('trainer', 'silent');
const OLDEST = 5;
const END = 8;

/** Partitions 0 to 2 of one topic, each holding offsets 5 to 7; values are decoded to what `valueAt` says. */
class FakeLog implements Pick<KafkaIo, 'openReader' | 'endOffsets'> {
  readonly assigned: Position[][] = [];
  readonly read: string[] = [];
  readonly #topic: TopicName;
  readonly #valueAt: (record: RawRecord) => unknown;
  readonly #at = new Map<number, number>();
  readonly #paused = new Set<number>();
  #whenRead: () => void = () => {};

  constructor(topic: TopicName, valueAt: (record: RawRecord) => unknown) {
    this.#topic = topic;
    this.#valueAt = valueAt;
  }
  async endOffsets(): Promise<Position[]> {
    return [0, 1, 2].map((partition) => ({ topic: this.#topic, partition, offset: END }));
  }
  async decode(_topic: TopicName, record: RawRecord): Promise<unknown> {
    this.read.push(`${record.partition}:${record.offset}`);
    return this.#valueAt(record);
  }
  /** Calls back whenever everything asked for has been handed out. */
  onIdle(idle: () => void): void {
    this.#whenRead = idle;
  }
  async openReader(): Promise<LogReader> {
    return {
      assign: async (positions) => {
        this.assigned.push([...positions]);
        for (const { partition, offset } of positions) {
          this.#at.set(partition, offset === -2 ? OLDEST : offset);
          this.#paused.delete(partition);
        }
      },
      unassign: () => {},
      pause: (partitions) => {
        for (const { partition } of partitions) this.#paused.add(partition);
      },
      resume: (partitions) => {
        for (const { partition } of partitions) this.#paused.delete(partition);
      },
      poll: async () => this.#poll(),
      close: async () => {},
    };
  }
  #poll(): FetchedPartition[] {
    const open = [...this.#at].filter(([partition]) => !this.#paused.has(partition));
    // Healthy ones answer before the failure is thrown, so that a rewind would show.
    const behind = open.find(([, at]) => at >= OLDEST && at < END);
    if (behind) return [this.#answer(behind[0], behind[1])];
    const lost = open.find(([, at]) => at < OLDEST);
    if (lost) throw new OffsetOutOfRangeError('not in the log', { topic: this.#topic, partition: lost[0] });
    this.#whenRead();
    return [];
  }
  #answer(partition: number, offset: number): FetchedPartition {
    const topic = this.#topic;
    this.#at.set(partition, END);
    const records = Array.from({ length: END - offset }, (_, i) => ({
      ...{ topic, partition, offset: offset + i, timestampMs: 0, key: null, value: null },
    }));
    return {
      ...{ topic, partition, records, nextOffset: END, highWatermark: END, lastStableOffset: END },
      ...{ ends: [], sizeBytes: 0, sentAtMs: 0 },
      cursor: () => {
        throw new Error('not used here');
      },
      release: () => {},
    };
  }
  /** What the feeds use of it. */
  get io(): KafkaIo {
    return this as unknown as KafkaIo;
  }
}

const deadLetters = (io: KafkaIo, meter: StageMeter) =>
  new DeadLetters(io, { send: async () => {}, close: async () => {} }, log, meter);

function sampleFeed(acceptLostSamples: boolean, maxBuffered: number) {
  const kafka = new FakeLog('training-samples', ({ partition, offset }) => {
    const value = sample(10 * partition + offset);
    return { key: value.exposure.userId, value };
  });
  const stopping = new AbortController();
  const meter = new StageMeter('trainer');
  const feed = SampleFeed.open({
    ...{ io: kafka.io, log, meter, deadLetters: deadLetters(kafka.io, meter) },
    ...{ scenarios: new Set<string>(SCENARIOS), leavesOut: () => null, batchSize: 1, maxBuffered },
    resume: {
      positions: new Map([
        [0, 6],
        [1, 2],
        [2, 7],
      ]),
      cursor: 0,
    },
    ...{ acceptLostSamples, stopping: stopping.signal },
  });
  return { kafka, stopping, feed };
}

test('lost samples: only the partition that lost them goes on from its earliest', async () => {
  const { kafka, stopping, feed: opening } = sampleFeed(true, 100);
  const feed = await opening;
  kafka.onIdle(() => stopping.abort());
  await feed.run();
  assert.deepEqual(kafka.assigned.slice(1), [[{ topic: 'training-samples', partition: 1, offset: -2 }]]);
  assert.deepEqual(kafka.read, ['0:6', '0:7', '2:7', '1:5', '1:6', '1:7']);
  assert.deepEqual(
    [0, 1, 2].map((p) => feed.drawer.bufferedOf(p)),
    [2, 3, 1],
  );
});

test('lost samples: partitions whose buffers are full stay paused and keep their place', async () => {
  const { kafka, stopping, feed: opening } = sampleFeed(true, 1);
  const feed = await opening;
  const running = feed.run();
  while (feed.drawer.buffered < 6) await feed.news;
  for (let p = 0; p < 3; p++) assert.ok(feed.drawer.bufferedOf(p) >= 1);
  while (feed.drawer.draw()) feed.madeRoom();
  kafka.onIdle(() => stopping.abort());
  feed.madeRoom();
  await running;
  assert.deepEqual(kafka.read, ['0:6', '0:7', '2:7', '1:5', '1:6', '1:7'], 'nothing twice');
});

test('lost samples are an error that names the setting unless they are accepted', async () => {
  const { kafka, feed } = sampleFeed(false, 100);
  await assert.rejects((await feed).run(), /ONEMALL_ACCEPT_LOST_SAMPLES=true once/);
  assert.equal(kafka.assigned.length, 1);
});

test('lost reward groups: only the partition that lost them goes on from its earliest', async () => {
  const kafka = new FakeLog('reward-batches', ({ partition, offset }): { value: RewardBatch } => ({
    value: { ...rewardGroup(1), requestId: `${partition}:${offset}` },
  }));
  const stopping = new AbortController();
  const meter = new StageMeter('trainer');
  const feed = await RewardFeed.open({
    ...{ io: kafka.io, log, meter, deadLetters: deadLetters(kafka.io, meter) },
    rules: { codebookVersions: {}, numCodes: {}, maxLagSteps: 1, form: 'grpo' },
    ...{ heldBackFraction: 0, maxPerStep: 1, spreadSteps: 1, rememberedRequests: 10 },
    resume: {
      positions: new Map([
        [0, 6],
        [1, 2],
        [2, 7],
      ]),
      usedRequestIds: [],
    },
    stopping: stopping.signal,
  });
  kafka.onIdle(() => stopping.abort());
  await feed.run();
  assert.deepEqual(kafka.assigned.slice(1), [[{ topic: 'reward-batches', partition: 1, offset: -2 }]]);
  assert.deepEqual(kafka.read, ['0:6', '0:7', '2:7', '1:5', '1:6', '1:7']);
  assert.equal(feed.waiting, 6);
});
