/** Attempts of one training job that are stopped and go on; tables in memory, artifacts in a temporary folder. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Codebook } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { encode, readCodebook, stackVectors, writePairs } from '@onemall/quantization';
import { createLogger, FolderArtifactStore, SeededRandom, systemClock } from '@onemall/service-kit';
import type { JobConfig } from '../src/config.ts';
import { type JobContext, JobRefusedError } from '../src/jobs/job.ts';
import { trainCodebooks } from '../src/jobs/train-codebooks.ts';
import { item } from './samples.ts';

const NUM_ITEMS = 300;
const items = (seed: number, drift = 0) => {
  const [random, noise] = [new SeededRandom(seed), new SeededRandom(99)];
  return Array.from({ length: NUM_ITEMS }, (_, n) =>
    item(
      `p${n}`,
      Array.from({ length: 8 }, () => Math.fround(random.normal() + drift * noise.normal())),
    ),
  );
};

const CONFIG = {
  scenarios: { product_card: { clickWindowMs: 1, buyWindowMs: 1 } },
  seed: 3,
  textEmbeddingDim: 8,
  minItemsForCodebook: 10,
  lastLevel: 'fsq',
  maxTrainingVectors: 1_000,
  maxExcessConflict: 1,
  minCodeUsage: 0,
  maxRelativeError: 1,
  maxMovedShare: 0.5,
  trainingStateEveryMs: 0,
  trainingThreads: 1,
  projectorPairs: '',
  projectorSteps: 60,
  projectorDim: 6,
};

/** One job's surroundings; `attempt` runs it until the given state is kept, or to its end. */
async function oneJob(t: TestContext, config: Partial<typeof CONFIG> = {}) {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-train-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const artifacts = new FolderArtifactStore(folder);
  const tables = { items: items(1), codebooks: [] as Codebook[] };
  const kafka = {
    openTable: async ({
      topic,
      onRecord,
    }: {
      topic: 'items' | 'codebooks';
      onRecord: (r: object) => void;
    }) => {
      for (const value of tables[topic])
        onRecord({ key: 'itemId' in value ? value.itemId : value.scenario, value });
      return { readToEnd: async () => {}, close: async () => {} };
    },
    openWriter: async () => ({
      send: async (records: { value: Codebook }[]) => {
        tables.codebooks.push(...records.map(({ value }) => value));
      },
      close: async () => {},
    }),
  } as unknown as KafkaIo;
  let data: Record<string, unknown> = {};
  const log = createLogger('test', 'silent');
  const attempt = (stopAfterStates = Number.POSITIVE_INFINITY, more: Partial<typeof CONFIG> = {}) => {
    const stop = new AbortController();
    let states = 0;
    const context: JobContext = {
      jobId: '7',
      config: { ...CONFIG, ...config, ...more } as unknown as JobConfig,
      kafka,
      artifacts,
      clock: systemClock,
      log,
      stopping: stop.signal,
      progress: async () => {},
      kept: () => data,
      keep: async (more) => {
        data = { ...data, ...more };
        if (Object.keys(more)[0]!.startsWith('state:') && ++states === stopAfterStates)
          stop.abort(new Error('stopped'));
      },
    };
    return trainCodebooks(context).then(() => states);
  };
  return {
    artifacts,
    tables,
    attempt,
    data: () => data,
    forget: () => {
      data = {};
    },
  };
}

test('an attempt that was stopped goes on, and ends with the codebook of one that was not', async (t) => {
  const whole = await oneJob(t);
  await whole.attempt();
  const [expected] = whole.tables.codebooks;

  const stopped = await oneJob(t);
  await assert.rejects(stopped.attempt(2), /stopped/);
  assert.equal(stopped.tables.codebooks.length, 0);
  assert.equal((await stopped.artifacts.list('checkpoints/codebooks')).length, 1);
  await assert.rejects(stopped.attempt(3), /stopped/);
  const statesLeft = await stopped.attempt();
  const [record] = stopped.tables.codebooks;
  assert.equal(record!.sha256, expected!.sha256);
  assert.deepEqual(record!.metrics, expected!.metrics);
  assert.ok(statesLeft >= 1);
  assert.deepEqual(await stopped.artifacts.list('checkpoints/codebooks'), []);
  // An attempt after that, as when the worker died before it could say that the job was done, publishes nothing again.
  await stopped.attempt();
  assert.equal(stopped.tables.codebooks.length, 1);
});

test('a state of other items is not used', async (t) => {
  const job = await oneJob(t);
  await assert.rejects(job.attempt(3), /stopped/);
  job.tables.items = items(2);
  await job.attempt();
  const other = await oneJob(t);
  other.tables.items = items(2);
  await other.attempt();
  assert.equal(job.tables.codebooks[0]!.sha256, other.tables.codebooks[0]!.sha256);
});

test('the next version keeps most first-level codes, and one that moves too many items is refused', async (t) => {
  const job = await oneJob(t);
  await job.attempt();
  job.forget();
  job.tables.items = items(1, 0.05);
  await job.attempt();
  const [first, second] = job.tables.codebooks;
  assert.deepEqual([first!.codebookVersion, second!.codebookVersion], [1, 2]);
  assert.equal(first!.metrics.moved, undefined);
  assert.ok(second!.metrics.moved1! < 0.2 && second!.metrics.moved! >= second!.metrics.moved1!);

  const strict = await oneJob(t, { maxMovedShare: 0 });
  await strict.attempt();
  strict.forget();
  strict.tables.items = items(1, 0.3);
  await assert.rejects(
    strict.attempt(),
    (error) =>
      error instanceof JobRefusedError &&
      /another first-level code than in version 1; at most 0 may/.test(error.message),
  );
  assert.equal(strict.tables.codebooks.length, 1);
  assert.deepEqual(await strict.artifacts.list('checkpoints/codebooks'), []);
});

test('pairs train a projector, which the next versions keep, and SIDs go through it', async (t) => {
  const job = await oneJob(t);
  await job.attempt();
  // Items belong together that are close in their first two numbers; the others are noise to the pairs.
  const embeddings = job.tables.items.map(({ embedding }) => embedding!);
  const pairs = embeddings.flatMap(([x, y], a) => {
    const near = embeddings
      .map(([u, v], b) => ({ b, far: (x! - u!) ** 2 + (y! - v!) ** 2 }))
      .filter(({ b }) => b > a)
      .toSorted((p, q) => p.far - q.far);
    return near.slice(0, 5).flatMap(({ b }) => [a, b]);
  });
  const ref = await job.artifacts.put(
    'pairs/1',
    writePairs({
      itemIds: job.tables.items.map(({ itemId }) => itemId),
      commercial: Int32Array.from(pairs),
      watching: new Int32Array(0),
      filters: {},
      cutoffMs: 1,
    }),
  );
  const projectorPairs = `${ref.uri}@${ref.sha256}`;
  job.forget();
  await job.attempt(undefined, { projectorPairs });
  job.forget();
  await job.attempt();
  const [first, second, third] = await Promise.all(
    job.tables.codebooks.map(async (record) => readCodebook(await job.artifacts.get(record))),
  );
  assert.equal(first!.projector, undefined);
  assert.deepEqual([second!.dim, second!.projector!.outDim], [8, 6]);
  assert.equal(second!.projector!.trainedOn, projectorPairs);
  const { projectorRecall50Before: before, projectorRecall50After: after } = job.tables.codebooks[1]!.metrics;
  assert.ok(after! > before!, `${after} above ${before}`);
  // Another space: nothing of the first version goes on. The third one keeps the projector, and so most codes.
  assert.equal(job.tables.codebooks[1]!.metrics.moved, undefined);
  assert.deepEqual(third!.projector, second!.projector);
  assert.ok(job.tables.codebooks[2]!.metrics.moved1! < 0.2);
  const codes = await encode(second!, stackVectors(embeddings));
  assert.equal(codes.length, 3 * NUM_ITEMS);

  job.forget();
  job.tables.items = items(2).map((value) => ({ ...value, itemId: `other-${value.itemId}` }));
  await assert.rejects(
    job.attempt(undefined, { projectorPairs: projectorPairs.replace('pairs/1@', 'pairs/2@') }),
    /pairs\/2 is not in/,
  );
  const fresh = await oneJob(t);
  fresh.tables.items = job.tables.items;
  await fresh.artifacts.put('pairs/1', await job.artifacts.get(ref));
  await assert.rejects(fresh.attempt(undefined, { projectorPairs }), /leave 0 pairs of the catalogue/);
});
