/** The final score of beam and dense head: against both computed apart with a real policy, and what is kept of the item side. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type ItemTensors, itemTensors, sidLayout } from '@onemall/features';
import { createRetrievalTrainer, loadItemTower, loadPolicy, type RetrievalTrainer } from '@onemall/learning';
import { openSearchThreads } from '../src/adapters/search-threads.ts';
import { type LoadedPolicy, loadedPolicy, Retrieval } from '../src/retrieval.ts';
import { encodeRequest } from '../src/stages/encode-request.ts';
import { ItemVectors } from '../src/state/item-vectors.ts';
import { Popularity } from '../src/state/popularity.ts';
import { SidCatalogue } from '../src/state/sid-catalogue.ts';
import { publication } from './policy-table.ts';

const NUM_CODES = { product_card: [8, 8, 8], live_stream: [8, 8, 8] } as const;
const SCENARIOS = Object.keys(NUM_CODES);
const LAYOUT = sidLayout(SCENARIOS, NUM_CODES);
const NOW_MS = 1_000_000;
const NUM_ITEMS = 40;
const sidOf = (n: number) => ({ c1: n % 8, c2: (3 * n) % 8, c3: n % 5 });
const featuresOf = (n: number) => ({
  category: `c${n % 3}`,
  tags: [`t${n % 4}`],
  priceCents: 100 * n,
  sellerId: `s${n % 6}`,
});

function fillCatalogue(): SidCatalogue {
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  for (let n = 0; n < NUM_ITEMS; n++) {
    const itemId = `p${n}`;
    const sid = { scenario: 'product_card', codebookVersion: 1, ...sidOf(n) };
    catalogue.putItem(itemId, {
      ...{ itemId, scenario: 'product_card', validFromMs: 5, title: '', productId: null },
      ...{ contentVideo: false, embedding: null },
      ...featuresOf(n),
    });
    catalogue.putItemSid(`${itemId}:1`, { itemId, sid, validFromMs: 0, reason: 'NEW_ITEM', createdMs: 0 });
  }
  const room = { scenario: 'live_stream', codebookVersion: 1, c1: 1, c2: 2, c3: 3 };
  catalogue.putLiveSid('room:1', {
    ...{ liveId: 'room', sid: room, validFromMs: 0, reason: 'NEW_ITEM', createdMs: 0 },
    ...{ sellingItemIds: ['p3', 'p7'], explainingItemId: null, sourcePartition: 0, sourceOffset: 0 },
  });
  return catalogue;
}
const requestOf = (scenario: string) => ({
  scenario,
  requestTimeMs: NOW_MS,
  history: {
    exposures: [],
    clicks: [{ itemId: 'p5', eventTimeMs: 900_000, category: 'c2' }],
    buys: [],
  },
});

describe('beam plus dense head', () => {
  let trainer: RetrievalTrainer;
  let files: Map<string, Uint8Array>;
  let policy: LoadedPolicy;
  const catalogue = fillCatalogue();
  const retrieval = (denseWeight: number) =>
    new Retrieval({
      ...{ catalogue, denseWeight, itemOrder: 'freshness', nowMs: () => NOW_MS },
      popularity: new Popularity(1000),
    });
  before(async () => {
    trainer = await createRetrievalTrainer({
      ...{ preset: 'tiny', scenarios: SCENARIOS, numCodes: NUM_CODES, seed: 9 },
    });
    files = await trainer.exportPolicy({
      ...{
        policyVersion: '0-test',
        codebookVersions: { product_card: 1, live_stream: 1 },
        beamWidths: [8, 64],
      },
    });
    const search = await openSearchThreads(files, { threads: 2, onFailure: (error) => assert.fail(error) });
    policy = loadedPolicy(publication('0-test', 0), search);
  });
  after(async () => {
    await policy.search.close();
    await trainer.close();
  });

  /** Both parts apart: the graphs of the artifact, without the retriever. */
  async function cosines(scenario: string, items: ItemTensors[]): Promise<number[]> {
    const runtime = await loadPolicy(files);
    const request = encodeRequest(runtime.manifest, LAYOUT, requestOf(scenario), (version, itemId, timeMs) =>
      catalogue.sidAsOf(version, itemId, timeMs),
    );
    const decoding = runtime.begin(await runtime.encode(request));
    await decoding.first();
    const user = decoding.user!.slice();
    decoding.release();
    await runtime.close();
    const tower = await loadItemTower(files);
    const vectors = await tower.embed(items);
    await tower.close();
    return items.map((_, i) => user.reduce((sum, x, d) => sum + x * vectors[i * tower.dim + d]!, 0));
  }

  test('the score is log p + weight x cosine, over all that the beam found, best first', async () => {
    const options = { k: NUM_ITEMS, beamWidth: 64 };
    const beam = await retrieval(0).retrieve(policy, requestOf('product_card'), options);
    assert.equal(beam.length, NUM_ITEMS);
    const expected = await cosines(
      'product_card',
      beam.map(({ itemId, sid }) =>
        itemTensors(
          {
            scenario: 'product_card',
            features: { ...featuresOf(Number(itemId.slice(1))), sellingItemIds: [], validFromMs: 5 },
            sid: { scenario: 'product_card', ...sid },
          },
          () => null,
          { layout: LAYOUT },
        ),
      ),
    );
    const both = new Map(beam.map(({ itemId, score }, i) => [itemId, score + 15 * expected[i]!]));
    const served = await retrieval(15).retrieve(policy, requestOf('product_card'), { ...options, k: 10 });
    assert.equal(served.length, 10);
    const best = [...both].sort((a, b) => b[1] - a[1]).slice(0, 10);
    assert.deepEqual(
      served.map((item) => item.itemId),
      best.map(([itemId]) => itemId),
    );
    for (const { itemId, score } of served) assert.ok(Math.abs(score - both.get(itemId)!) < 1e-3, itemId);
    assert.notDeepEqual(
      served.map((item) => item.itemId),
      beam.slice(0, 10).map((item) => item.itemId),
      'the head changes the order',
    );
  });

  test('a room is described by the SIDs of what it sells now', async () => {
    const scored = async () =>
      (await retrieval(15).retrieve(policy, requestOf('live_stream'), { k: 1, beamWidth: 8 }))[0]!.score;
    const logProb = (
      await retrieval(0).retrieve(policy, requestOf('live_stream'), { k: 1, beamWidth: 8 })
    )[0]!.score;
    const selling = ['p3', 'p7'].map((id) => Number(id.slice(1)));
    const [cosine] = await cosines('live_stream', [
      itemTensors(
        {
          scenario: 'live_stream',
          features: {
            ...{ category: '', tags: [], priceCents: 0, sellerId: '', validFromMs: 0 },
            sellingItemIds: ['p3', 'p7'],
          },
          sid: null,
        },
        (itemId) => ({ scenario: 'product_card', ...sidOf(selling.find((n) => `p${n}` === itemId)!) }),
        { layout: LAYOUT },
      ),
    ]);
    assert.ok(Math.abs((await scored()) - (logProb + 15 * cosine!)) < 1e-3);
  });
});

describe('the vectors of items', () => {
  const tensors = (n: number): ItemTensors => ({
    scenario: 'product_card',
    hashes: Int32Array.of(n),
    codes: Int32Array.of(n, n, n),
  });
  const counting = (mostKept?: number) => {
    const asked: number[] = [];
    const vectors = new ItemVectors(async (items) => {
      for (const { hashes } of items) asked.push(hashes[0]!);
      return Float32Array.from(items.flatMap(({ hashes }) => [hashes[0]!, 1]));
    }, mostKept);
    return { asked, vectors };
  };

  test('are computed once, and again for an item that has changed', async () => {
    const { asked, vectors } = counting();
    await vectors.of([1, 2].map((n) => ({ itemId: `p${n}`, tensors: tensors(n) })));
    const again = await vectors.of([
      { itemId: 'p2', tensors: tensors(2) },
      { itemId: 'p1', tensors: tensors(7) },
      { itemId: 'p3', tensors: tensors(3) },
    ]);
    assert.deepEqual(asked, [1, 2, 7, 3]);
    assert.deepEqual(
      again.map((v) => v[0]),
      [2, 7, 3],
    );
  });

  test('never more than the limit, the least recently wanted go first', async () => {
    const { asked, vectors } = counting(2);
    const want = (n: number) => vectors.of([{ itemId: `p${n}`, tensors: tensors(n) }]);
    for (const n of [1, 2, 1, 3, 1]) await want(n);
    assert.equal(vectors.size, 2);
    await want(2);
    assert.deepEqual(asked, [1, 2, 3, 2]);
  });
});
