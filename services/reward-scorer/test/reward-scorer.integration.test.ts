import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import type { Candidate, Item, LiveSid, PolicyVersion, Rollout, TopicName } from '@onemall/contracts';
import { FEATURE_VERSION, hashFeature, NUM_DENSE, NUM_IDS, rankerFeatures } from '@onemall/features';
import { connectKafka, type TypedRecord } from '@onemall/kafka-io';
import { createRankerTrainer, loadRanker } from '@onemall/learning';
import { FolderArtifactStore } from '@onemall/service-kit';
import { type SpawnedService, spawnService, startTestStack, type TestStack, waitFor } from '@onemall/testkit';

const TOPICS: TopicName[] = [
  'items',
  'live-sids',
  'policy-versions',
  'rollouts',
  'reward-batches',
  'dead-letters',
];
const SCENARIOS = ['product_card', 'live_stream'];
const RETENTION = { largestWindowMs: 8_000, graceMs: 1_000, longestOutageMs: 86_400_000 };
const EGPM_SCALE = { product_card: 500, live_stream: 500 };

let stack: TestStack | undefined;
before(async () => {
  stack = await startTestStack();
});
after(() => stack?.stop());

/** A namespace on a real broker with the scorer as a process of its own. */
async function harness(t: TestContext, more: Record<string, string> = {}) {
  const namespace = stack!.newNamespace();
  const kafka = await connectKafka({
    brokers: stack!.brokers,
    registryUrl: stack!.registryUrl,
    namespace,
    clientId: 'test',
  });
  await kafka.createTopics(TOPICS, { retention: RETENTION, numPartitions: 2 });
  await kafka.registerSchemas(TOPICS);
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-scorer-'));
  const artifacts = new FolderArtifactStore(folder);
  const writer = await kafka.openWriter();
  const batches: TypedRecord<'reward-batches'>[] = [];
  const deadLetters: TypedRecord<'dead-letters'>[] = [];
  const onError = (error: unknown) => console.error(error);
  await kafka.openTable({ topic: 'reward-batches', onRecord: (r) => void batches.push(r), onError });
  await kafka.openTable({ topic: 'dead-letters', onRecord: (r) => void deadLetters.push(r), onError });
  const services: SpawnedService[] = [];
  t.after(async () => {
    for (const service of services) await service.kill().catch(() => {});
    await kafka.close();
    await rm(folder, { recursive: true, force: true });
  });
  const windows = { clickWindowMs: 4_000, buyWindowMs: 8_000 };
  let service: SpawnedService;
  const until = (what: string, condition: () => boolean | Promise<boolean>) =>
    waitFor(condition, {
      what: `${what}; the service's log ends with:\n${service.logTail(15)}`,
      timeoutMs: 60_000,
    });
  const value = async (name: string) => (await service.status()).values[name] ?? 0;
  return {
    kafka,
    writer,
    batches,
    deadLetters,
    until,
    value,
    untilValue: (name: string, atLeast: number) =>
      until(`${name} >= ${atLeast}`, async () => (await value(name)) >= atLeast),
    status: () => service.status(),
    logTail: () => service.logTail(40),
    async start() {
      service = await spawnService('reward-scorer', {
        ONEMALL_KAFKA_BROKERS: stack!.brokers,
        ONEMALL_REGISTRY_URL: stack!.registryUrl,
        ONEMALL_NAMESPACE: namespace,
        ONEMALL_ARTIFACTS_URI: folder,
        ONEMALL_DATA_DIR: folder,
        ONEMALL_SCENARIOS: JSON.stringify(Object.fromEntries(SCENARIOS.map((s) => [s, windows]))),
        ...more,
      });
      services.push(service);
      await service.ready();
      return service;
    },
    async putItems(numItems: number) {
      const records = Array.from({ length: numItems }, (_, n) => item(n));
      await writer.send(records.map((i) => ({ topic: 'items' as const, key: i.itemId, value: i })));
    },
    /** A real ranker with random weights. `change` may spoil its manifest before it is published. */
    async publishRanker(step: number, change?: (manifest: Record<string, unknown>) => void) {
      const rankerVersion = `${step}-ranker`;
      const trainer = await createRankerTrainer({ preset: 'tiny', scenarios: SCENARIOS, seed: step });
      const files = await trainer.exportRanker({ rankerVersion, egpmScale: EGPM_SCALE });
      await trainer.close();
      if (change) {
        const manifest = JSON.parse(Buffer.from(files.get('ranker.json')!).toString());
        change(manifest);
        files.set('ranker.json', Buffer.from(JSON.stringify(manifest)));
      }
      const ref = await artifacts.put(`policies/ranker/${step}`, files);
      const publication: PolicyVersion = {
        model: 'RANKER',
        policyVersion: rankerVersion,
        ...ref,
        step,
        codebookVersions: {},
        metrics: {},
        createdMs: Date.now(),
      };
      await writer.send([{ topic: 'policy-versions', key: 'RANKER', value: publication }]);
      return files;
    },
    async putRollout(n: number, candidates: Candidate[], change: Partial<Rollout> = {}) {
      const rollout = { ...rolloutOf(n, candidates), ...change };
      await writer.send([{ topic: 'rollouts', key: `request-${n}`, value: rollout }]);
      return rollout;
    },
  };
}

const item = (n: number): Item => ({
  itemId: `item-${n}`,
  scenario: 'product_card',
  validFromMs: n,
  title: '',
  category: `c${n % 3}`,
  tags: [`t${n % 5}`],
  priceCents: 100 * (n + 1),
  sellerId: `s${n % 4}`,
  productId: null,
  contentVideo: false,
  embedding: null,
});
const candidate = (n: number, itemId: string | null): Candidate => ({
  c1: 1,
  c2: 2,
  c3: n,
  tokenLogProbs: [-0.5, -0.5, -n - 1],
  itemId,
});
const candidates = (count: number): Candidate[] =>
  Array.from({ length: count }, (_, n) => candidate(n, `item-${n}`));
const rolloutOf = (n: number, list: Candidate[]): Rollout => ({
  requestId: `request-${n}`,
  userId: 'u',
  scenario: 'product_card',
  requestTimeMs: 1_000_000 + n,
  policyVersion: '5-policy',
  codebookVersion: 1,
  history: {
    exposures: [{ itemId: 'item-1', eventTimeMs: 900_000, category: 'c1' }],
    clicks: [{ itemId: 'item-1', eventTimeMs: 950_000, category: 'c1' }],
    buys: [],
  },
  candidates: list,
  createdMs: Date.now(),
});

describe('reward-scorer', () => {
  test('rollouts wait for the first ranker, then get the rewards of the formulas', async (t) => {
    const h = await harness(t);
    await h.putItems(12);
    const service = await h.start();
    const list = [...candidates(12), candidate(12, null), candidate(13, 'item-3'), candidate(14, 'unknown')];
    const rollout = await h.putRollout(1, list);
    await h.until('the lag of the waiting rollout', async () => (await h.status()).lag === 1);
    assert.equal(h.batches.length, 0);

    const files = await h.publishRanker(1);
    await h.until('the reward batch', () => h.batches.length === 1);
    const { key, value: batch } = h.batches[0]!;
    assert.equal(key, 'request-1');
    assert.deepEqual(
      [batch!.rankerVersion, batch!.policyVersion, batch!.codebookVersion, batch!.rolloutCreatedMs],
      ['1-ranker', '5-policy', 1, rollout.createdMs],
    );
    assert.equal(batch!.candidates.length, 14, 'item-3 twice: the more probable SID stays');

    // The same numbers from the artifact and the formulas alone.
    const ranker = await loadRanker(files);
    const dense = new Float32Array(12 * NUM_DENSE);
    const ids = new Int32Array(12 * NUM_IDS);
    for (let n = 0; n < 12; n++) {
      const { category, tags, priceCents, sellerId, validFromMs } = item(n);
      const own = { category, tags, priceCents, sellerId, validFromMs, sellingItemIds: [] };
      const features = rankerFeatures(rollout, `item-${n}`, own);
      dense.set(features.dense, n * NUM_DENSE);
      ids.set(features.ids, n * NUM_IDS);
    }
    const scores = await ranker.score(dense, ids, 12);
    await ranker.close();
    const rewards = Array.from({ length: 12 }, (_, n) => {
      const pEgpm = (scores.pCtcvr[n]! * scores.buyValueCents[n]!) / 500;
      return scores.pCtr[n]! + 30 * scores.pCtcvr[n]! + pEgpm;
    });
    const lowest = Math.min(...rewards);
    const all = [...rewards, lowest, lowest];
    const mean = all.reduce((a, b) => a + b, 0) / all.length;
    const std = Math.sqrt(all.reduce((a, b) => a + (b - mean) ** 2, 0) / all.length);
    for (const [i, c] of batch!.candidates.entries()) {
      assert.ok(Math.abs(c.reward - all[i]!) < 1e-6, `reward ${i}: ${c.reward}, expected ${all[i]}`);
      const advantage = Math.max(-5, Math.min(5, (all[i]! - mean) / std));
      assert.ok(Math.abs(c.advantage - advantage) < 1e-4, `advantage ${i}`);
    }
    assert.equal(await h.value('candidates_without_item'), 2);
    assert.equal(await h.value('candidates_duplicate'), 1);
    assert.ok((await h.status()).p50Ms! > 0);
    assert.equal(await service.stop(), 0);
  });

  test('switches to a newer ranker, refuses one with other features, buries bad rollouts, survives a kill', async (t) => {
    const h = await harness(t, { ONEMALL_MAX_ROLLOUT_AGE_MS: '600000' });
    await h.putItems(12);
    await h.publishRanker(1);
    let service = await h.start();
    await h.putRollout(1, candidates(12));
    await h.until('the first batch', () => h.batches.length === 1);

    await h.publishRanker(2, (manifest) => {
      manifest.featureVersion = 999;
    });
    await h.untilValue('models_refused', 1);
    assert.match(h.logTail(), /features of version 999/);
    await h.putRollout(2, candidates(12));
    await h.until('a batch of the old ranker', () => h.batches.length === 2);
    await h.publishRanker(3);
    await h.untilValue('models_loaded', 2);
    await h.putRollout(3, candidates(12));
    await h.until('a batch of the new ranker', () => h.batches.length === 3);
    assert.deepEqual(h.batches.map((b) => [b.key, b.value!.rankerVersion]).sort(), [
      ['request-1', '1-ranker'],
      ['request-2', '1-ranker'],
      ['request-3', '3-ranker'],
    ]);

    await h.putRollout(4, candidates(12), { createdMs: Date.now() - 3_600_000 });
    await h.untilValue('rollouts_too_old', 1);
    await h.putRollout(5, [candidate(0, null)]);
    await h.untilValue('groups_skipped_no_items', 1);
    await h.putRollout(6, [candidate(0, 'item-1')]);
    await h.untilValue('groups_skipped_equal_rewards', 1);

    await h.putRollout(7, candidates(3), { scenario: 'cars' });
    await h.putRollout(8, candidates(3), { requestId: 'other' });
    await h.putRollout(9, [{ ...candidate(0, 'item-1'), tokenLogProbs: [-1, Number.NaN, -1] }]);
    await h.until('dead letters', () => h.deadLetters.length === 3);
    assert.deepEqual(h.deadLetters.map((d) => d.value!.reason).sort(), [
      'KEY_MISMATCH',
      'NOT_A_NUMBER',
      'UNKNOWN_SCENARIO',
    ]);
    const misplaced = h.deadLetters.find((d) => d.value!.reason === 'KEY_MISMATCH')!.value!;
    assert.equal(misplaced.topic.endsWith('rollouts'), true);
    assert.equal(misplaced.key!.toString(), 'request-8');
    assert.ok(misplaced.payload!.length > 5);

    await service.kill();
    await h.putRollout(10, candidates(12));
    service = await h.start();
    await h.until('the batch after a kill', () => h.batches.some((b) => b.key === 'request-10'));
    assert.equal(await service.stop(), 0);
  });

  test('a ranker over HTTP scores; a rollout for which it answers garbage becomes a dead letter alone', async (t) => {
    const poison = hashFeature('item', 'item-11');
    let version = 'http-1';
    const server = createServer(async (request, response) => {
      let body = '';
      for await (const part of request) body += part;
      const features = { featureVersion: FEATURE_VERSION, numDense: NUM_DENSE, numIds: NUM_IDS };
      if (request.url === '/ranker')
        return response.end(JSON.stringify({ rankerVersion: version, ...features, egpmScale: EGPM_SCALE }));
      const { rankerVersion, ids } = JSON.parse(body) as { rankerVersion: string; ids: number[][] };
      if (rankerVersion !== version) return response.writeHead(409).end();
      if (ids.some((row) => row[0] === poison)) return response.end('garbage');
      const of = (scale: number) => ids.map((row) => (row[0]! % 1000) * scale);
      return response.end(
        JSON.stringify({ rankerVersion, pCtr: of(1e-3), pCtcvr: of(1e-4), buyValueCents: of(1) }),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => {
      server.closeAllConnections();
      server.close();
    });
    const h = await harness(t, {
      ONEMALL_RANKER_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      ONEMALL_RANKER_TIMEOUT_MS: '60000',
      ONEMALL_RANKER_REFRESH_MS: '200',
    });
    await h.putItems(12);
    const service = await h.start();
    await h.untilValue('models_loaded', 1);
    await h.putRollout(1, candidates(6));
    await h.putRollout(2, candidates(12));
    await h.putRollout(3, candidates(6));
    await h.until(
      'two batches and a dead letter',
      () => h.batches.length === 2 && h.deadLetters.length === 1,
    );
    assert.deepEqual(h.batches.map((b) => b.key).sort(), ['request-1', 'request-3']);
    assert.equal(h.deadLetters[0]!.value!.reason, 'REFUSED_BY_RANKER');
    assert.equal(h.deadLetters[0]!.value!.key!.toString(), 'request-2');
    const batch = h.batches[0]!.value!;
    const pCtr = (hashFeature('item', batch.candidates[0]!.itemId!) % 1000) * 1e-3;
    assert.ok(Math.abs(batch.candidates[0]!.pCtr - pCtr) < 1e-6);

    version = 'http-2';
    await h.putRollout(4, candidates(6));
    await h.until('a batch of the new version', () => h.batches.some((b) => b.key === 'request-4'));
    assert.equal(h.batches.find((b) => b.key === 'request-4')!.value!.rankerVersion, 'http-2');
    assert.equal(await service.stop(), 0);
  });

  test('a live room is scored with the products it sold at the request, also when it has closed since', async (t) => {
    const h = await harness(t);
    await h.putItems(3);
    const room = { ...item(50), itemId: 'room', scenario: 'live_stream' };
    const live: LiveSid = {
      liveId: 'room',
      sid: null,
      validFromMs: 0,
      reason: 'NEW_ITEM',
      sellingItemIds: ['item-1'],
      explainingItemId: null,
      sourcePartition: 0,
      sourceOffset: 0,
      createdMs: 0,
    };
    await h.writer.send([
      { topic: 'items', key: 'room', value: room },
      { topic: 'live-sids', key: 'room:1', value: live },
      { topic: 'live-sids', key: 'room:1', value: { ...live, validFromMs: 2_000_000, sellingItemIds: [] } },
      { topic: 'live-sids', key: 'room:1', value: null },
    ]);
    const files = await h.publishRanker(4);
    const service = await h.start();
    const list = [candidate(0, 'room'), candidate(1, 'item-0')];
    const rollout = await h.putRollout(1, list, { scenario: 'live_stream' });
    await h.until('the reward batch', () => h.batches.length === 1);
    const { category, tags, priceCents, sellerId, validFromMs } = room;
    const features = rankerFeatures(rollout, 'room', {
      category,
      tags,
      priceCents,
      sellerId,
      validFromMs,
      sellingItemIds: ['item-1'],
    });
    const ranker = await loadRanker(files);
    const scores = await ranker.score(features.dense, features.ids, 1);
    await ranker.close();
    const scored = h.batches[0]!.value!.candidates[0]!;
    assert.ok(Math.abs(scored.pCtr - scores.pCtr[0]!) < 1e-6);
    assert.ok(Math.abs(scored.pCtcvr - scores.pCtcvr[0]!) < 1e-6);
    assert.equal(await service.stop(), 0);
  });
});
