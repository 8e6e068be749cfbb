import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Item, ItemSid, LiveSid, Sid, TrainingSample } from '@onemall/contracts';
import { HotSwap, isHeldBack } from '@onemall/service-kit';
import fc from 'fast-check';
import { buildTrie, type NumCodes, packSid } from '../src/stages/build-trie.ts';
import { checkSample } from '../src/stages/check-sample.ts';
import { HitSums } from '../src/stages/measure-hits.ts';
import type { FoundSids } from '../src/stages/search-beam.ts';
import { RateBudget, RecentIds, SlidingShare, selectRequest } from '../src/stages/select-requests.ts';
import { firstItem, orderItems, type Shelves, serveItems } from '../src/stages/serve-items.ts';
import { Popularity } from '../src/state/popularity.ts';
import { ReferencePolicy } from '../src/state/reference-policy.ts';
import { SidCatalogue } from '../src/state/sid-catalogue.ts';
import { TrieWeights } from '../src/state/trie-weights.ts';

fc.configureGlobal({ seed: 12 });
const NUM_CODES: NumCodes = [8, 8, 8];
const item = (itemId: string, more: Partial<Item> = {}): Item => ({
  itemId,
  scenario: 'product_card',
  validFromMs: 0,
  title: itemId,
  category: 'shoes',
  tags: [],
  priceCents: 100,
  sellerId: 's',
  productId: null,
  contentVideo: false,
  embedding: null,
  ...more,
});
const sid = (c1: number, c2: number, c3: number, more: Partial<Sid> = {}): Sid => ({
  scenario: 'product_card',
  codebookVersion: 1,
  c1,
  c2,
  c3,
  ...more,
});
const itemSid = (itemId: string, of: Sid, validFromMs = 0): ItemSid => ({
  itemId,
  sid: of,
  validFromMs,
  reason: 'NEW_ITEM',
  createdMs: 0,
});
const liveSid = (liveId: string, of: Sid | null, sellingItemIds: string[], validFromMs = 0): LiveSid => ({
  liveId,
  sid: of,
  validFromMs,
  reason: 'PRODUCT_CHANGE',
  sellingItemIds,
  explainingItemId: null,
  sourcePartition: 0,
  sourceOffset: 0,
  createdMs: 0,
});
const LIVE = { scenario: 'live_stream' };

test('an item is in the trie while it has both a SID of the version and a catalogue entry, in either order', () => {
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  const trie = (version = 1) => [...catalogue.trie('product_card', version, NUM_CODES, 0).packed];
  catalogue.putItemSid('a:1', itemSid('a', sid(1, 2, 3)));
  assert.deepEqual(trie(), []);
  catalogue.putItem('a', item('a'));
  assert.deepEqual(trie(), [packSid(sid(1, 2, 3))]);
  catalogue.putItem('b', item('b'));
  catalogue.putItemSid('b:1', itemSid('b', sid(1, 2, 3)));
  assert.deepEqual([...catalogue.itemsOf('product_card', 1, packSid(sid(1, 2, 3)))].sort(), ['a', 'b']);
  catalogue.putItem('a', null);
  assert.deepEqual([...catalogue.itemsOf('product_card', 1, packSid(sid(1, 2, 3)))], ['b']);
  catalogue.putItemSid('b:1', itemSid('b', sid(4, 0, 0), 10));
  assert.deepEqual(trie(), [packSid(sid(4, 0, 0))]);
  catalogue.putItemSid('b:2', itemSid('b', sid(7, 7, 7, { codebookVersion: 2 })));
  assert.deepEqual(trie(2), [packSid(sid(7, 7, 7))]);
  catalogue.putItemSid('b:1', null);
  assert.deepEqual(trie(), []);
  assert.deepEqual(trie(2), [packSid(sid(7, 7, 7))]);
});

test('a live room enters with its first SID, moves with its products and leaves when it sells nothing', () => {
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  const trie = () => [...catalogue.trie('live_stream', 1, NUM_CODES, 0).packed];
  catalogue.putLiveSid('room:1', liveSid('room', null, ['a']));
  assert.deepEqual(trie(), []);
  catalogue.putLiveSid('room:1', liveSid('room', sid(1, 1, 1, LIVE), ['a'], 10));
  assert.deepEqual(trie(), [packSid(sid(1, 1, 1))]);
  catalogue.putLiveSid('room:1', liveSid('room', sid(2, 2, 2, LIVE), ['b'], 20));
  assert.deepEqual(trie(), [packSid(sid(2, 2, 2))]);
  assert.deepEqual(catalogue.sidAsOf(1, 'room', 15), sid(1, 1, 1, LIVE));
  catalogue.putLiveSid('room:1', liveSid('room', null, [], 30));
  assert.deepEqual(trie(), []);
  assert.deepEqual(catalogue.sidAsOf(1, 'room', 30), sid(2, 2, 2, LIVE), 'good enough for a history');
  catalogue.putLiveSid('room:1', liveSid('room', sid(3, 3, 3, LIVE), ['b'], 40));
  catalogue.putLiveSid('room:1', null);
  assert.deepEqual(trie(), []);
});

test('a codebook version is forgotten when all its SIDs have ended and no policy in use has it', () => {
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  for (const version of [1, 2]) {
    catalogue.putItemSid(`a:${version}`, itemSid('a', sid(1, 1, version, { codebookVersion: version })));
    catalogue.putItemSid(`b:${version}`, itemSid('b', sid(2, 2, version, { codebookVersion: version })));
  }
  const known = () => [1, 2].filter((version) => catalogue.sidAsOf(version, 'a', 50));
  catalogue.putItemSid('a:1', null);
  catalogue.forgetBefore(100, new Set([2]));
  assert.deepEqual(known(), [1, 2], 'b still has one');
  catalogue.putItemSid('b:1', null);
  catalogue.forgetBefore(100, new Set([1, 2]));
  assert.deepEqual(known(), [1, 2], 'a policy in use reads histories by it');
  catalogue.forgetBefore(100, new Set([2]));
  assert.deepEqual(known(), [2]);
  catalogue.putItem('a', item('a'));
  assert.equal(catalogue.numSids('product_card', 2), 1);
});

test('a trie is merged anew at most every rebuildMs and older ones stay as they were', () => {
  const catalogue = new SidCatalogue({ rebuildMs: 500 });
  catalogue.putItem('a', item('a'));
  catalogue.putItemSid('a:1', itemSid('a', sid(1, 1, 1)));
  const before = catalogue.trie('product_card', 1, NUM_CODES, 1000);
  catalogue.putItem('b', item('b'));
  catalogue.putItemSid('b:1', itemSid('b', sid(2, 2, 2)));
  assert.equal(catalogue.trie('product_card', 1, NUM_CODES, 1499), before);
  const later = catalogue.trie('product_card', 1, NUM_CODES, 1500);
  assert.equal(later.packed.length, 2);
  assert.equal(before.packed.length, 1);
  assert.equal(
    catalogue.trie('product_card', 1, NUM_CODES, 9000),
    later,
    'nothing changed, nothing is built',
  );
});

test('random entering and leaving gives the trie of what is left', () => {
  const move = fc.record({
    id: fc.integer({ min: 0, max: 12 }).map((n) => `i${n}`),
    kind: fc.constantFrom('item', 'noItem', 'sid', 'noSid', 'read'),
    code: fc.nat(7),
  });
  fc.assert(
    fc.property(fc.array(move, { maxLength: 80 }), (moves) => {
      const catalogue = new SidCatalogue({ rebuildMs: 0 });
      const items = new Set<string>();
      const sids = new Map<string, Sid>();
      const expected = () =>
        [...new Set([...sids].filter(([id]) => items.has(id)).map(([, s]) => packSid(s)))].sort(
          (a, b) => a - b,
        );
      const read = () =>
        assert.deepEqual([...catalogue.trie('product_card', 1, NUM_CODES, 0).packed], expected());
      for (const { id, kind, code } of moves) {
        if (kind === 'item') {
          items.add(id);
          catalogue.putItem(id, item(id));
        } else if (kind === 'noItem') {
          items.delete(id);
          catalogue.putItem(id, null);
        } else if (kind === 'sid') {
          sids.set(id, sid(code, 0, 0));
          catalogue.putItemSid(`${id}:1`, itemSid(id, sid(code, 0, 0)));
        } else if (kind === 'noSid') {
          sids.delete(id);
          catalogue.putItemSid(`${id}:1`, null);
        } else read();
      }
      read();
    }),
  );
});

test('codes outside the policy codebook stay out of the trie; codes that no codebook has are refused', () => {
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  catalogue.putItem('a', item('a'));
  catalogue.putItemSid('a:1', itemSid('a', sid(100, 0, 0)));
  assert.equal(catalogue.trie('product_card', 1, NUM_CODES, 0).packed.length, 0);
  assert.throws(
    () => catalogue.putItemSid('a:1', itemSid('a', sid(-1, 0, 0))),
    /SID of a has a code outside/,
  );
});

test('categories narrow the trie; a room counts as what it sells', () => {
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  catalogue.putItem('a', item('a', { category: 'shoes' }));
  catalogue.putItem('b', item('b', { category: 'hats' }));
  catalogue.putItemSid('a:1', itemSid('a', sid(1, 1, 1)));
  catalogue.putItemSid('b:1', itemSid('b', sid(2, 2, 2)));
  const all = () => catalogue.trie('product_card', 1, NUM_CODES, 0);
  const hats = () => [...catalogue.trieOfCategories(all(), 'product_card', 1, ['hats']).packed];
  assert.deepEqual(hats(), [packSid(sid(2, 2, 2))]);
  catalogue.putItem('a', item('a', { category: 'hats', validFromMs: 5 }));
  assert.deepEqual(hats(), [packSid(sid(1, 1, 1)), packSid(sid(2, 2, 2))]);
  catalogue.putLiveSid('room:1', liveSid('room', sid(3, 3, 3, LIVE), ['b']));
  const rooms = catalogue.trie('live_stream', 1, NUM_CODES, 0);
  assert.equal(catalogue.trieOfCategories(rooms, 'live_stream', 1, ['hats']).packed.length, 1);
  assert.equal(catalogue.trieOfCategories(rooms, 'live_stream', 1, ['cars']).packed.length, 0);
});

const shelves = (
  entries: Record<number, Record<string, { popularity: number; freshMs: number; seen?: number }>>,
): Shelves => ({
  itemsOf: (packed) => Object.keys(entries[packed] ?? {}),
  standing: (itemId) => ({ seen: 0, ...Object.values(entries).find((e) => itemId in e)![itemId]! }),
});
const found = (...packed: number[]): FoundSids => ({
  size: packed.length,
  packed: Float64Array.from(packed),
  scores: Float64Array.from(packed, (p) => -2 - p),
  tokenLogProbs: Float32Array.from(packed.flatMap((p) => [-1, -1, -p])),
});

test('serveItems goes in beam order, several items of a SID by popularity or freshness, distinct, at most k', () => {
  const shelf = shelves({
    1: { old: { popularity: 5, freshMs: 1 }, fresh: { popularity: 2, freshMs: 9 } },
    2: { z: { popularity: 0, freshMs: 0 }, y: { popularity: 0, freshMs: 0 } },
  });
  const ids = (order: 'popularity' | 'freshness', k = 10) =>
    serveItems(found(1, 2, 3), shelf, { k, order }).map((s) => s.itemId);
  assert.deepEqual(ids('popularity'), ['old', 'fresh', 'y', 'z']);
  assert.deepEqual(ids('freshness'), ['fresh', 'old', 'y', 'z']);
  assert.deepEqual(ids('popularity', 3), ['old', 'fresh', 'y']);
  assert.equal(firstItem(shelf, 1, 'popularity'), 'old');
  assert.equal(firstItem(shelf, 3, 'popularity'), null);
  assert.deepEqual(orderItems(shelf, 2, 'popularity'), ['y', 'z']);
  const [first] = serveItems(found(1), shelf, {
    k: 1,
    order: 'popularity',
    accept: (id) => id !== 'old',
  });
  assert.deepEqual(first, { itemId: 'fresh', sid: { c1: 0, c2: 0, c3: 1 }, score: -3 });
});

test('by share, a SID lends its probability to its items by what was seen of each', () => {
  // e^-3 over 1 + 8 and 1 + 0, e^-4 for one item: 0.0448, 0.0050 and 0.0183
  const shelf = shelves({
    1: { rare: { popularity: 0, freshMs: 2, seen: 0 }, often: { popularity: 8, freshMs: 1, seen: 8 } },
    2: { alone: { popularity: 0, freshMs: 0 } },
  });
  const served = serveItems(found(1, 2), shelf, { k: 10, order: 'share' });
  assert.deepEqual(
    served.map((s) => s.itemId),
    ['often', 'alone', 'rare'],
  );
  for (const [i, p] of [0.9 * Math.exp(-3), Math.exp(-4), 0.1 * Math.exp(-3)].entries())
    assert.ok(Math.abs(Math.exp(served[i]!.score) - p) < 1e-12);
  const some = serveItems(found(1, 2), shelf, { k: 1, order: 'share', accept: (id) => id !== 'often' });
  assert.deepEqual(
    some.map((s) => s.itemId),
    ['alone'],
  );
  assert.equal(firstItem(shelf, 1, 'share'), 'often');
});

test('weights of a trie are sums of what was seen below, one for each item, and made anew as counts go on', () => {
  const sids = [
    { c1: 1, c2: 2, c3: 3 },
    { c1: 1, c2: 2, c3: 4 },
    { c1: 1, c2: 5, c3: 0 },
    { c1: 7, c2: 0, c3: 0 },
  ].map(packSid);
  const trie = buildTrie([8, 8, 8], Float64Array.from(sids));
  const items = new Map(sids.map((packed, i) => [packed, i === 0 ? ['a', 'b'] : [`i${i}`]]));
  const popularity = new Popularity(1000);
  popularity.count('a', false, 0); // a half by now
  popularity.count('i3', true, 1000);
  const weights = new TrieWeights();
  const at = (nowMs: number) =>
    weights.of(
      trie,
      (packed) => items.get(packed)!,
      (itemId) => popularity.countOf(itemId),
      nowMs,
    );
  const expected = [
    [2.5 + 1 + 1, 12],
    [2.5 + 1, 1, 12],
    [2.5, 1, 1, 12],
  ];
  const near = (actual: Float32Array, counts: number[]): void => {
    assert.equal(actual.length, counts.length);
    for (const [i, count] of counts.entries()) assert.ok(Math.abs(actual[i]! - Math.log(count)) < 1e-6);
  };
  for (const [level, counts] of expected.entries()) near(at(0)[level]!, counts);
  popularity.count('i3', false, 1000);
  assert.equal(at(4_000), at(0), 'kept for a while');
  near(at(6_000)[0], [4.5, 13]);
});

test('popularity fades by half per half-life and survives long spans', () => {
  const popularity = new Popularity(1000);
  popularity.count('early', true, 0);
  popularity.count('late', false, 4000);
  assert.ok(popularity.of('late') > popularity.of('early'), '1 after 4 half-lives beats 11');
  assert.ok(Math.abs(popularity.of('late') / popularity.of('early') - 16 / 11) < 1e-9);
  popularity.count('much later', false, 5_000_000);
  assert.equal(popularity.of('early'), 0);
  assert.equal(popularity.of('much later'), 1);
  assert.throws(() => new Popularity(0), /halfLifeMs/);
});

test('a request is decided by its id alone; held-back requests never become rollouts', () => {
  const shares = { rolloutShare: 0.5, heldBackFraction: 0.2 };
  const ids = Array.from({ length: 5000 }, (_, i) => `r${i}`);
  const chosen = ids.map((id) => selectRequest(shares, id));
  const count = (what: string) => chosen.filter((c) => c === what).length / ids.length;
  assert.ok(Math.abs(count('heldBack') - 0.2) < 0.03);
  assert.ok(Math.abs(count('rollout') - 0.4) < 0.03);
  for (const [i, id] of ids.entries()) assert.equal(chosen[i] === 'heldBack', isHeldBack(id, 0.2));
  assert.deepEqual(
    ids.map((id) => selectRequest(shares, id)),
    chosen,
  );
});

test('RecentIds tells repeats among the newest ids; RateBudget sheds what exceeds its rate', () => {
  const recent = new RecentIds(2);
  assert.deepEqual(
    ['a', 'a', 'b', 'c', 'a'].map((id) => recent.add(id)),
    [true, false, true, true, true],
  );
  const budget = new RateBudget(2);
  const taken = (atMs: number, asks: number) =>
    Array.from({ length: asks }, () => budget.take(atMs)).filter(Boolean).length;
  assert.equal(taken(0, 10), 2);
  assert.equal(taken(500, 10), 1);
  assert.equal(taken(60_000, 10), 2, 'no more than a second is saved up');
  assert.equal(new RateBudget(0).take(1), false);
});

test('SlidingShare forgets what is older than its window', () => {
  const share = new SlidingShare(1000);
  assert.equal(share.share(0), 0);
  for (let i = 0; i < 10; i++) share.add(i < 4, 100 * i);
  assert.equal(share.share(950), 0.4);
  share.add(true, 1450);
  // what remains: marked 1450, unmarked 500 to 900
  assert.equal(share.share(1450), 1 / 6);
  assert.equal(share.share(9000), 0);
});

test('hit sums weigh every request once and keep policies and scenarios apart', () => {
  const sums = new HitSums();
  const one = { policyVersion: '3-a', step: 3, scenario: 'product_card' };
  sums.add({ ...one, place: 0, legal: { searched: 50, existing: 10 } });
  sums.add({ ...one, place: 10, legal: { searched: 50, existing: 30 } });
  sums.add({ ...one, place: 49, legal: { searched: 0, existing: 0 } });
  sums.add({ ...one, place: -1, legal: { searched: 0, existing: 0 } });
  sums.add({ ...one, scenario: 'live_stream', place: -1, legal: { searched: 0, existing: 0 } });
  const [products, rooms] = sums.take(77);
  assert.deepEqual(products, {
    source: 'retriever',
    scenario: 'product_card',
    version: '3-a',
    step: 3,
    values: { requests: 4, hits_10: 1, hr_10: 0.25, hits_50: 3, hr_50: 0.75, legality: 0.4 },
    createdMs: 77,
  });
  assert.deepEqual(rooms!.values, { requests: 1, hits_10: 0, hr_10: 0, hits_50: 0, hr_50: 0 });
  assert.deepEqual(sums.take(78), []);
});

test('the reference policy stands still between syncs and is held until its last user is done', async () => {
  const policy = (name: string, step: number, codebookVersion = 1) => ({
    name,
    publication: { step, codebookVersions: { product_card: codebookVersion } },
  });
  const closed: string[] = [];
  const newest = new HotSwap<ReturnType<typeof policy>>(
    async ({ name }) => void closed.push(name),
    (error) => assert.fail(String(error)),
  );
  const reference = new ReferencePolicy({ acquireNewest: () => newest.acquire(), syncSteps: 100 });
  const held = (): string => {
    const lease = reference.acquire()!;
    lease.release();
    return lease.model.name;
  };
  assert.equal(reference.acquire(), undefined);
  newest.swap(policy('one', 40));
  const first = reference.acquire()!;
  newest.swap(policy('two', 139));
  assert.equal(held(), 'one');
  await Promise.resolve();
  assert.deepEqual(closed, []);
  newest.swap(policy('three', 140));
  assert.equal(held(), 'three');
  await Promise.resolve();
  assert.equal(first.model.name, 'one');
  assert.deepEqual(closed, ['two'], 'one is still in use');
  first.release();
  await Promise.resolve();
  assert.deepEqual(closed, ['two', 'one']);

  newest.swap(policy('rolled back', 139));
  assert.equal(held(), 'rolled back', 'the trainer went back behind the reference');
  newest.swap(policy('on from there', 238));
  assert.equal(held(), 'rolled back');
  newest.swap(policy('other codebooks', 238, 2));
  assert.equal(held(), 'other codebooks', 'groups of the old codebooks train nobody');
  await reference.close();
  await newest.close();
  assert.deepEqual(closed.toSorted(), [
    'on from there',
    'one',
    'other codebooks',
    'rolled back',
    'three',
    'two',
  ]);
});

test('a sample without ids, of an unknown scenario or of another time is bad input', () => {
  const rules = { scenarios: new Set(['product_card']), nowMs: 1000, allowedClockSkewMs: 100 };
  const check = (change: object): void => {
    const exposure = {
      requestId: 'r',
      itemId: 'i',
      scenario: 'product_card',
      requestTimeMs: 900,
      eventTimeMs: 1100,
    };
    checkSample({ exposure: { ...exposure, ...change } } as TrainingSample, rules);
  };
  check({});
  assert.throws(() => check({ requestId: '' }), { reason: 'EMPTY_ID' });
  assert.throws(() => check({ itemId: '' }), { reason: 'EMPTY_ID' });
  assert.throws(() => check({ scenario: 'cars' }), { reason: 'UNKNOWN_SCENARIO' });
  assert.throws(() => check({ eventTimeMs: 1101 }), { reason: 'TIME_OUT_OF_RANGE' });
  assert.throws(() => check({ requestTimeMs: -1 }), { reason: 'TIME_OUT_OF_RANGE' });
});
