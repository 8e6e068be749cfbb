import assert from 'node:assert/strict';
import { test } from 'node:test';
import { packSid } from '@onemall/retriever/src/stages/build-trie.ts';
import { candidatesOf, Popularity } from '../../src/world/log/popularity.ts';
import { SCENARIOS, WorldLog } from '../../src/world/log/world-log.ts';
import { ExistingSids } from '../../src/world/samples/existing-sids.ts';
import { passOrder, SampleEncoder } from '../../src/world/samples/sample-encoder.ts';
import {
  encodeItems,
  ItemVectors,
  SemanticIds,
  trainCodebooks,
} from '../../src/world/samples/semantic-ids.ts';
import { positivesBefore } from '../../src/world/samples/training-samples.ts';
import { smallPlan } from './small-plan.ts';

const log = new WorldLog(smallPlan({ trainExposures: 3_000 }));
while (log.numExposures < 3_000) log.nextRequest();
const vectors = new ItemVectors(log);
const options = { maxVectors: 2_000, maxIterations: 3, lastLevel: 'fsq', seed: 1 } as const;
const codebooks = await trainCodebooks(log, vectors, options, () => undefined);
const sids = await SemanticIds.open(log, vectors, codebooks, await encodeItems(log, vectors, codebooks));
await sids.followRooms();
const newest = log.numRequests - 1;
const endMs = log.requests.timeMs.at(newest);

/** 1 for each item and what is known of it, over the items whose SID begins so. */
function weightBelow(
  scenario: (typeof SCENARIOS)[number],
  begin: readonly number[],
  seen: Popularity,
): number {
  const items = scenario === 'live_stream' ? log.roomsAt(endMs) : candidatesOf(log, scenario);
  let sum = 0;
  for (const item of items) {
    const sid = sids.sidAsOf(item, endMs);
    if (sid && [sid.c1, sid.c2, sid.c3].slice(0, begin.length).every((code, l) => code === begin[l]))
      sum += 1 + seen.of(item);
  }
  return sum;
}

test('children are the codes of existing items below a prefix, weighted by all that is below them', () => {
  const seen = new Popularity(log);
  seen.follow(newest);
  const existing = new ExistingSids(log, sids, seen);
  for (const scenario of SCENARIOS) {
    const [item] = scenario === 'live_stream' ? log.roomsAt(endMs) : candidatesOf(log, scenario);
    const sid = sids.sidAsOf(item!, endMs)!;
    const codes = [sid.c1, sid.c2, sid.c3];
    existing.children(sid, endMs).forEach(({ codes: siblings, logWeights }, level) => {
      assert.ok(siblings.includes(codes[level]!));
      const expected = Array.from(siblings, (code) =>
        weightBelow(scenario, [...codes.slice(0, level), code], seen),
      );
      assert.ok(expected.every((weight) => weight > 0));
      expected.forEach((weight, i) => {
        assert.ok(Math.abs(Math.log(weight) - logWeights![i]!) < 1e-5, `${scenario} level ${level + 1}`);
      });
    });
    const { trie } = existing.asOf(scenario, endMs);
    assert.ok(trie.packed.includes(packSid(sid)));
  }
  const [first, second] = existing.children({ scenario: 'product_card', c1: 100_000, c2: 0, c3: 0 }, endMs);
  assert.ok(first.codes.length > 0);
  assert.equal(second.codes.length, 0);
});

test('on a grid nothing counts that happened after its last line', () => {
  const gridMs = 20_000;
  const momentMs = log.plan.startMs + 2 * gridMs + 7_000;
  const own = new Popularity(log);
  const { timeMs } = new ExistingSids(log, sids, own, gridMs).asOf('product_card', momentMs);
  assert.ok(timeMs % gridMs === 0 && timeMs <= momentMs && momentMs - timeMs < gridMs);
  const counted = new Map<number, number>();
  for (let row = 0; row < log.numExposures; row++) {
    const item = log.exposures.item.at(row);
    const shownMs = log.requests.timeMs.at(log.exposures.request.at(row));
    const clickMs = log.exposures.clickMs.at(row);
    const seen = (shownMs < timeMs ? 1 : 0) + (clickMs > 0 && clickMs < timeMs ? 10 : 0);
    counted.set(item, (counted.get(item) ?? 0) + seen);
  }
  assert.ok([...counted.values()].some((count) => count > 0));
  for (const [item, count] of counted) assert.equal(own.of(item), count, log.itemId(item));
});

test('a pass takes every positive once, span after span, and mixes the pages of a span', () => {
  const rows = positivesBefore(log, endMs);
  const order = passOrder(log, rows);
  assert.deepEqual(order.toSorted(), rows.toSorted());
  const spans = Array.from(order, (row) =>
    Math.floor(log.requests.timeMs.at(log.exposures.request.at(row)) / 120_000),
  );
  assert.deepEqual(
    spans,
    spans.toSorted((a, b) => a - b),
  );
  const requests = Array.from(order, (row) => log.exposures.request.at(row));
  const beside = requests.filter((request, i) => i > 0 && request === requests[i - 1]).length;
  assert.ok(beside < rows.length / 10, `${beside} of ${rows.length} stand beside one of their own page`);
});

test('a model of clicks alone reads the same clicks and nothing else of the user', () => {
  const all = new SampleEncoder(log, sids, 6).request(newest).behaviours;
  const clicks = new SampleEncoder(log, sids, 6, 'codes', 'clicks').request(newest).behaviours;
  assert.ok([all.exposure, all.click].every(({ codes }) => codes.some((code) => code >= 0)));
  assert.deepEqual(clicks.click, all.click);
  for (const kind of ['exposure', 'buy'] as const) assert.ok(clicks[kind].codes.every((code) => code === -1));
});
