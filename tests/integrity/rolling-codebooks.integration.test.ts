/** A new codebook version while everything runs: job, both versions served, a fork that takes over, readers that switch. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Click, Exposure } from '@onemall/contracts';
import { readContinues } from '@onemall/quantization';
import { createLogger, SeededRandom, systemClock } from '@onemall/service-kit';
import { startTestStack, type TestStack, vectorOf } from '@onemall/testkit';
import type { JobConfig } from '../../services/job-runner/src/config.ts';
import { trainCodebooks } from '../../services/job-runner/src/jobs/train-codebooks.ts';
import { codesOf, gauge, newest, PipelineScene, productItem, retrieve } from './pipeline-scene.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

const START_MS = 1_700_000_000_000;
const SCENARIOS = ['live_stream', 'product_card'];
const NUM_PRODUCTS = 60;
const NUM_ROOMS = 20;
const NUM_USERS = 20;
const TRAINER = {
  ONEMALL_BATCH_SIZE: '16',
  ONEMALL_HISTORY_LENGTH: '6',
  ONEMALL_RL_MODE: 'off',
  ONEMALL_LEARNING_RATE: '0.01',
  ONEMALL_WARMUP_STEPS: '0',
  ONEMALL_LOSS_SPIKE_FACTOR: '0',
  ONEMALL_HELD_BACK_FRACTION: '0.25',
  ONEMALL_GATE_REQUESTS: '60',
  ONEMALL_GATE_MIN_REQUESTS: '20',
  // Small models on few requests: what the gate itself does is tested beside it.
  ONEMALL_GATE_MAX_RECALL_FALL: '0.3',
  ONEMALL_GATE_MAX_LEGALITY_FALL: '1',
  ONEMALL_BEAM_WIDTHS: '16',
  ONEMALL_MAX_BATCH_WAIT_MS: '300',
  ONEMALL_METRICS_EVERY_MS: '200',
  ONEMALL_CHECKPOINT_EVERY_STEPS: '10',
  ONEMALL_PUBLISH_EVERY_STEPS: '10',
  ONEMALL_PUBLISH_EVERY_MS: '3600000',
  ONEMALL_CHECKPOINT_EVERY_MS: '3600000',
  ONEMALL_ITEM_VECTORS_PER_POLICY: '0',
};

/** Pages of users who keep to a few items, each clicked. */
class Traffic {
  readonly #random = new SeededRandom(5);
  #n = 0;

  records(count: number) {
    return Array.from({ length: count }, () => this.#page()).flat();
  }
  #page() {
    const n = this.#n++;
    const user = this.#random.int(NUM_USERS);
    const live = this.#random.next() < 0.3;
    const at = (user * 3 + this.#random.int(3)) % (live ? NUM_ROOMS : NUM_PRODUCTS);
    const eventTimeMs = START_MS + n * 20;
    const page: Exposure = {
      ...{ exposureId: `e${n}`, userId: `u${user}`, itemId: live ? `room${at}` : `p${at}` },
      ...{ scenario: live ? 'live_stream' : 'product_card', eventTimeMs, requestTimeMs: eventTimeMs - 5 },
      ...{ requestId: `r${n}`, position: 0, watchMs: null, priceCents: 100 },
      requestFeatures: { ints: [], floats: [] },
    };
    const click: Click = {
      ...{ actionId: `a${n}`, exposureId: page.exposureId, userId: page.userId, itemId: page.itemId },
      eventTimeMs: eventTimeMs + 2,
    };
    return [
      { topic: 'exposures' as const, key: page.userId, value: page },
      { topic: 'clicks' as const, key: page.userId, value: click },
    ];
  }
}

test('a new codebook version is trained, served beside the old one, forked to and taken over', async (t) => {
  const scene = await PipelineScene.create(stack, {
    scenarios: SCENARIOS,
    numPartitions: 2,
    env: { ONEMALL_ROLLOUT_BUDGET_PER_S: '0' },
  });
  t.after(() => scene.close());
  const products = Array.from({ length: NUM_PRODUCTS }, (_, n) => productItem(n));
  const rooms = Array.from({ length: NUM_ROOMS }, (_, n) =>
    productItem(n, { itemId: `room${n}`, scenario: 'live_stream', embedding: null }),
  );
  await scene.put(...products, ...rooms);
  const itemSids = await scene.follow('item-sids');
  const liveSids = await scene.follow('live-sids');
  const codebooks = await scene.follow('codebooks');
  const policies = await scene.follow('policy-versions');
  const samples = await scene.follow('training-samples');
  const inVersion = (version: number): number =>
    new Set([...itemSids, ...liveSids].flatMap((r) => (r.key.endsWith(`:${version}`) ? [r.key] : []))).size;
  // Side by side: what they wait for comes while they start.
  const starting = Promise.all([
    scene.start('sample-assembler'),
    scene.start('trainer', TRAINER),
    scene.start('retriever'),
  ]);
  starting.catch(() => {}); // awaited below
  await scene.start('live-sid-updater');
  for (let n = 0; n < NUM_ROOMS; n++) await scene.change(`room${n}`, 'ADDED', `p${n * 3}`, START_MS - 1_000);
  await scene.until('SIDs of version 1', () => inVersion(1) === NUM_PRODUCTS + NUM_ROOMS);

  const traffic = new Traffic();
  const feedUntil = (what: string, done: () => unknown): Promise<void> =>
    scene.until(what, async () => {
      if (await done()) return true;
      // No faster than it is trained: what waits would only delay the test.
      const behind = sent - samples.filter((s) => s.value?.firstPositive).length;
      if (behind < 64) {
        sent += 32;
        await scene.writer.send(traffic.records(32));
      }
      return false;
    });
  let sent = 0;
  const [, main, retriever] = await starting;
  await feedUntil('a policy on version 1', () => policies.length > 0);
  await feedUntil('retrieval on version 1', async () => {
    const { body } = await retrieve(retriever, 'product_card');
    return body.codebookVersion === 1 && body.items!.length > 0;
  });
  assert.ok(samples.every(({ value }) => value?.sid?.codebookVersion === 1));

  // The catalogue drifts, and the job trains version 2 of both scenarios from version 1.
  await scene.put(
    ...products.map((product, n) => ({
      ...product,
      validFromMs: START_MS - 500,
      embedding: vectorOf(n).map((v, d) => Math.fround(v + 0.1 * Math.sin(n * 7 + d))),
    })),
  );
  await trainCodebooks({
    jobId: 'rolling',
    config: {
      ...{ scenarios: Object.fromEntries(SCENARIOS.map((s) => [s, {}])), seed: 3, textEmbeddingDim: 8 },
      ...{ minItemsForCodebook: NUM_ROOMS, lastLevel: 'fsq', maxTrainingVectors: 1_000, trainingThreads: 1 },
      ...{ maxExcessConflict: 1, minCodeUsage: 0, maxRelativeError: 1, maxMovedShare: 1 },
      ...{ trainingStateEveryMs: 60_000, liveTower: true, projectorPairs: '' },
    } as unknown as JobConfig,
    kafka: scene.kafka,
    artifacts: scene.artifacts,
    clock: systemClock,
    log: createLogger('test', 'silent'),
    stopping: new AbortController().signal,
    progress: async () => {},
    kept: () => ({}),
    keep: async () => {},
  });
  for (const scenario of SCENARIOS) {
    await scene.until(`version 2 of ${scenario}`, () => newest(codebooks, scenario)?.codebookVersion === 2);
    const record = newest(codebooks, scenario)!;
    const continues = readContinues(await scene.artifacts.get(record));
    assert.equal(continues?.version, 1);
    const first = continues!.match[0];
    if (scenario === 'live_stream')
      // Made from the tower of the policy in use: another space than the mean of the products, so codes begin anew.
      assert.ok(record.towerVersion !== null && first.every((code) => code === -1));
    else {
      assert.ok(
        first.some((code) => code >= 0),
        'codes of the first level go on',
      );
      assert.ok(
        first.every((code, i) => code === i || code === -1),
        'under their numbers',
      );
    }
  }
  await scene.until('SIDs of version 2', () => inVersion(2) === NUM_PRODUCTS + NUM_ROOMS);

  // Both versions are served: the assembler writes the newer one, the trainer of version 1 still trains, and it is what serves.
  const trainedBefore = (await gauge(main, 'training_samples'))!;
  const firstNew = samples.length;
  await feedUntil('samples of version 2, trained on version 1', async () => {
    const ofVersion2 = samples.slice(firstNew).filter((s) => s.value?.sid?.codebookVersion === 2).length;
    return ofVersion2 >= 64 && (await gauge(main, 'training_samples'))! > trainedBefore + 64;
  });
  assert.equal((await retrieve(retriever, 'product_card')).body.codebookVersion, 1);
  assert.ok(policies.every(({ value }) => value!.codebookVersions.product_card === 1));

  const fork = await scene.start('trainer', {
    ...TRAINER,
    ONEMALL_FORK: 'true',
    ONEMALL_FORK_QUIET_MS: '0',
    ONEMALL_FORK_TAIL_SAMPLES: '300',
    ONEMALL_DATA_DIR: 'fork',
  });
  const takenOver = () => policies.findLast(({ value }) => value!.codebookVersions.product_card === 2);
  // The fork may say so before its record has come here.
  await feedUntil(
    'the fork to take over',
    async () => (await gauge(fork, 'fork_took_over')) && takenOver() !== undefined,
  );
  const taken = takenOver()!.value!;
  assert.deepEqual(taken.codebookVersions, { live_stream: 2, product_card: 2 });
  assert.ok(taken.metrics.beam_recall! >= taken.metrics.beam_recall_published! - 0.3, 'it passed the gate');

  // The retriever switches to the trie of version 2 with it.
  await feedUntil('retrieval on version 2', async () => {
    const { body } = await retrieve(retriever, 'product_card');
    return body.codebookVersion === 2;
  });
  const served = (await retrieve(retriever, 'product_card')).body;
  assert.ok(served.items!.length > 0);
  for (const { itemId, sid } of served.items!)
    assert.deepEqual(codesOf(sid), codesOf(newest(itemSids, `${itemId}:2`)!.sid), itemId);

  // The trainer before is fenced at its next publication; started again it goes on from the fork's checkpoints.
  let ended: number | null | undefined;
  void main.exited.then(({ code }) => {
    ended = code ?? -1;
  });
  await feedUntil('the trainer of version 1 to end', () => ended !== undefined);
  assert.equal(ended, 1);
  assert.match(main.logTail(200), /FencedError|fenced/i);
  const again = await scene.start('trainer', TRAINER);
  await feedUntil('the trainer to go on', async () => (await gauge(again, 'training_steps'))! > taken.step);
  assert.match(again.logTail(200), /checkpoints\/retriever-on-live_stream\.2-product_card\.2\//);
  assert.equal(policies.at(-1)!.value!.codebookVersions.product_card, 2);
});
