/** A catalogue is tokenized again while the stream goes on. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { ItemSid } from '@onemall/contracts';
import { encode, readCodebook, stackVectors, writePairs } from '@onemall/quantization';
import { createLogger, systemClock } from '@onemall/service-kit';
import { startTestStack, type TestStack } from '@onemall/testkit';
import { readTable } from '../../services/job-runner/src/adapters/read-table.ts';
import type { JobConfig } from '../../services/job-runner/src/config.ts';
import type { JobContext, JobProgress } from '../../services/job-runner/src/jobs/job.ts';
import { retireCodebooks } from '../../services/job-runner/src/jobs/retire-codebooks.ts';
import { retokenizeCatalogue } from '../../services/job-runner/src/jobs/retokenize-catalogue.ts';
import { trainCodebooks } from '../../services/job-runner/src/jobs/train-codebooks.ts';
import { newest, PipelineScene, productItem } from './pipeline-scene.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

test('wrong SIDs of a whole catalogue are put right beside the stream, and a projector changes that for nobody', async (t) => {
  const scenarios = ['live_stream', 'product_card'];
  const scene = await PipelineScene.create(stack, { scenarios, env: { ONEMALL_ITEMS_PER_TURN: '7' } });
  t.after(() => scene.close());
  const products = Array.from({ length: 60 }, (_, n) => productItem(n));
  await scene.put(...products);
  const itemSids = await scene.follow('item-sids');
  const liveSids = await scene.follow('live-sids');
  await scene.start('live-sid-updater');
  await scene.change('room', 'ADDED', 'p1', 5_000);
  await scene.until('the first SIDs', () => newest(liveSids, 'room:1') && itemSids.length === 60);
  const right = new Map(itemSids.map(({ key, value }) => [key, value!.sid]));

  // Somebody wrote nonsense over all of them.
  const nonsense = [...right].map(([key, sid]) => {
    const value: ItemSid = {
      ...{ itemId: key.slice(0, -2), validFromMs: 6_000, reason: 'ITEM_CHANGED', createdMs: 6_000 },
      sid: { ...sid, c1: (sid.c1 + 1) % 16 },
    };
    return { topic: 'item-sids' as const, key, value };
  });
  await scene.writer.send(nonsense);
  const wrongNow = (): number =>
    [...right].filter(([key, { c1 }]) => newest(itemSids, key)!.sid.c1 !== c1).length;
  await scene.until('the nonsense', () => wrongNow() === 60);

  const told: JobProgress[] = [];
  const context: JobContext = {
    jobId: 'again',
    config: {
      scenarios: Object.fromEntries(scenarios.map((s) => [s, {}])),
      ...{ textEmbeddingDim: 8, textEncoderFolder: '', picturesFolder: '', retokenizeTimeoutMs: 120_000 },
    } as unknown as JobConfig,
    ...{ kafka: scene.kafka, artifacts: scene.artifacts, clock: systemClock },
    log: createLogger('test', 'silent'),
    stopping: new AbortController().signal,
    progress: async (progress) => {
      told.push(progress);
      if (told.length !== 2) return;
      // Amid the job: a change of a room and an item that is new.
      await scene.change('room', 'ADDED', 'p2', 7_000);
      await scene.put(productItem(61));
    },
    kept: () => ({}),
    keep: async () => {},
  };
  assert.deepEqual(await retokenizeCatalogue(context), { items: 60, wrongBefore: 60 });
  await scene.until('all SIDs at a reader', () => wrongNow() === 0);
  for (const [key, { c1, c2, c3 }] of right) {
    const { sid, validFromMs } = newest(itemSids, key)!;
    assert.deepEqual([sid.c1, sid.c2, sid.c3], [c1, c2, c3], key);
    assert.ok(validFromMs > 6_000, 'after what it replaces');
  }
  assert.ok(told.some(({ total }) => total === 60));
  await scene.until('the stream', () => {
    const room = newest(liveSids, 'room:1')!;
    return room.sellingItemIds.length === 2 && newest(itemSids, 'p61:1');
  });

  // Nothing is wrong: nothing is written.
  const written = itemSids.length;
  assert.deepEqual(await retokenizeCatalogue({ ...context, progress: async () => {} }), {
    items: 61,
    wrongBefore: 0,
  });
  await scene.put(productItem(62));
  await scene.until('one more item', () => newest(itemSids, 'p62:1'));
  assert.equal(itemSids.length, written + 1);

  // A version with a projector: the job that trained it, the updater and this job give an item one SID.
  const catalogue = Array.from({ length: 63 }, (_, n) => productItem(n)).filter(
    ({ itemId }) => itemId !== 'p60',
  );
  const neighbours = catalogue.flatMap((_, n) => [1, 2].flatMap((d) => [n, (n + d) % catalogue.length]));
  const pairs = await scene.artifacts.put(
    'pairs/1',
    writePairs({
      itemIds: catalogue.map(({ itemId }) => itemId),
      commercial: Int32Array.from(neighbours),
      watching: new Int32Array(0),
      filters: {},
      cutoffMs: 1,
    }),
  );
  const training: JobContext = {
    ...context,
    progress: async () => {},
    config: {
      ...{
        scenarios: { product_card: {} },
        seed: 1,
        textEmbeddingDim: 8,
        textEncoderFolder: '',
        picturesFolder: '',
      },
      ...{ minItemsForCodebook: 10, lastLevel: 'fsq', maxTrainingVectors: 1_000, trainingThreads: 1 },
      ...{ maxExcessConflict: 1, minCodeUsage: 0, maxRelativeError: 1, maxMovedShare: 1 },
      ...{ trainingStateEveryMs: 60_000, retokenizeTimeoutMs: 120_000 },
      ...{ projectorPairs: `${pairs.uri}@${pairs.sha256}`, projectorSteps: 40, projectorDim: 6 },
    } as unknown as JobConfig,
  };
  await trainCodebooks(training);
  const record = (await readTable(scene.kafka, 'codebooks')).get('product_card')!;
  const codebook = readCodebook(await scene.artifacts.get(record));
  assert.deepEqual([codebook.version, codebook.dim, codebook.projector?.outDim], [2, 8, 6]);
  await scene.until('the second version', () =>
    catalogue.every(({ itemId }) => newest(itemSids, `${itemId}:2`)),
  );
  const codes = await encode(codebook, stackVectors(catalogue.map(({ embedding }) => embedding!)));
  for (const [i, { itemId }] of catalogue.entries()) {
    const { c1, c2, c3 } = newest(itemSids, `${itemId}:2`)!.sid;
    assert.deepEqual([c1, c2, c3], [...codes.subarray(3 * i, 3 * i + 3)], itemId);
  }
  assert.deepEqual(await retokenizeCatalogue(training), { items: 62, wrongBefore: 0 });

  // The policy in use reads version 2: version 1 goes when nobody needs it any more, and says so before.
  const policy = (createdMs: number, cards: number) => ({
    topic: 'policy-versions' as const,
    key: 'RETRIEVER',
    value: {
      ...{ model: 'RETRIEVER' as const, policyVersion: `p${cards}`, uri: 'policies/1', sha256: '', step: 1 },
      ...{ codebookVersions: { product_card: cards, live_stream: 1 }, metrics: {}, createdMs },
    },
  });
  const retiring = (more: object, dryRun = false): JobContext => ({
    ...training,
    config: {
      ...training.config,
      ...{ scenarios: { product_card: { clickWindowMs: 1, buyWindowMs: 1_000 } } },
      ...{ graceMs: 500, longestOutageMs: 500, retireAfterMs: 0, ...more },
    } as unknown as JobConfig,
    kept: () => ({ dryRun }),
  });
  await assert.rejects(retireCodebooks(retiring({})), /No policy of the retriever is in use/);
  const createdMs = systemClock.nowMs() - 60_000;
  await scene.writer.send([policy(createdMs, 1), policy(createdMs + 1, 2), policy(createdMs + 2, 2)]);
  const plan = { scenario: 'product_card', oldestVersion: 2, retires: [1], dueMs: null, sids: 62 };
  assert.deepEqual(await retireCodebooks(retiring({}, true)), { dryRun: true, plan: [plan] });
  assert.deepEqual(await retireCodebooks(retiring({ retireAfterMs: 3_600_000 })), {
    plan: [{ ...plan, dueMs: createdMs + 1 + 3_600_000 }],
  });
  const before = itemSids.length;
  assert.deepEqual(await retireCodebooks(retiring({})), { plan: [plan] });
  await scene.until('the tombstones at a reader', () => itemSids.length === before + 62);
  assert.ok(itemSids.slice(before).every(({ key, value }) => value === null && key.endsWith(':1')));
  assert.equal(newest(liveSids, 'room:1')!.sellingItemIds.length, 2, 'rooms keep the version that is in use');
  assert.deepEqual(await retireCodebooks(retiring({}, true)), {
    ...{ dryRun: true, plan: [{ ...plan, retires: [], sids: 0 }] },
  });
});
