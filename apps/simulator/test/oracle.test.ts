/** What the oracle says is what happens. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tasteDrawChance } from '../src/world/logging-policy.ts';
import { Oracle } from '../src/world/oracle.ts';
import { MEAN_QUANTITY } from '../src/world/truth.ts';
import type { World, WorldRecord } from '../src/world/world.ts';
import { SETTINGS, smallWorld } from './small-world.ts';

/** Takes records and tells the truth of each exposure before its successor. */
function judge(world: World, exposures: number) {
  world.openRooms(SETTINGS.startMs);
  const wants = new Map<string, Float32Array>();
  world.onRequest = ({ requestId, want }) => wants.set(requestId, want);
  const truths = new Map<string, { pCtr: number; pCtcvr: number; value: number; position: number }>();
  const clicked = new Set<string>();
  const paid = new Map<string, number>();
  const take = (record: WorldRecord): void => {
    if (record.topic === 'exposures') {
      const { exposureId, userId, itemId, requestId, position } = record.value;
      const [t] = world.trueScores(userId, [itemId], wants.get(requestId)!);
      if (t) truths.set(exposureId, { ...t, value: t.expectedValueCents, position });
    } else if (record.topic === 'clicks') clicked.add(record.value.exposureId!);
    else if (record.topic === 'buys')
      paid.set(record.value.exposureId!, record.value.priceCents * record.value.quantity);
  };
  while (truths.size < exposures) take(world.next());
  const lastMs = world.nextAtMs() + 20_000;
  while (world.nextAtMs() < lastMs) {
    const record = world.next();
    if (record.topic !== 'exposures') take(record);
  }
  return { truths, clicked, paid };
}

test('clicks, buys and paid values come as often and as large as the truth says, in every decile', () => {
  const { truths, clicked, paid } = judge(smallWorld({ positionBias: false }), 40_000);
  const rows = [...truths].map(([id, t]) => ({
    ...t,
    clicked: clicked.has(id) ? 1 : 0,
    bought: paid.has(id) ? 1 : 0,
    paid: paid.get(id) ?? 0,
  }));
  const mean = (of: (r: (typeof rows)[number]) => number, from: typeof rows): number =>
    from.reduce((s, r) => s + of(r), 0) / from.length;
  rows.sort((a, b) => a.pCtr - b.pCtr);
  const tenth = Math.floor(rows.length / 10);
  for (let d = 0; d < 10; d++) {
    const part = rows.slice(d * tenth, (d + 1) * tenth);
    const [said, came] = [mean((r) => r.pCtr, part), mean((r) => r.clicked, part)];
    // four standard deviations of the mean
    assert.ok(Math.abs(said - came) < 4 * Math.sqrt(said / tenth), `decile ${d}: said ${said}, came ${came}`);
  }
  const [said, came] = [mean((r) => r.pCtcvr, rows), mean((r) => r.bought, rows)];
  assert.ok(Math.abs(said - came) < 4 * Math.sqrt(said / rows.length), `buys: said ${said}, came ${came}`);
  const [value, got] = [mean((r) => r.value, rows), mean((r) => r.paid, rows)];
  const sd = Math.sqrt(mean((r) => (r.paid - r.value) ** 2, rows) / rows.length);
  assert.ok(Math.abs(value - got) < 4 * sd, `value: said ${value}, came ${got}, sd ${sd}`);
  assert.ok(MEAN_QUANTITY > 1);
});

test('the oracle gives every candidate the scores that trueScores gives it alone', () => {
  const world = smallWorld();
  world.openRooms(SETTINGS.startMs);
  const oracle = new Oracle(world);
  const want = world.wantOf('u3');
  for (const scenario of ['product_card', 'short_video', 'live_stream'] as const) {
    const n = oracle.numCandidates(scenario);
    assert.equal(n, { product_card: 300, short_video: 200, live_stream: 10 }[scenario]);
    const truths = oracle.truths('u3', want, scenario);
    for (const c of [0, 1, n - 1]) {
      const [alone] = world.trueScores('u3', [oracle.itemId(scenario, c)], want);
      assert.equal(truths.pCtr[c], Math.fround(alone!.pCtr));
      assert.equal(truths.pCtcvr[c], Math.fround(alone!.pCtcvr));
      assert.equal(truths.expectedValueCents[c], Math.fround(alone!.expectedValueCents));
    }
  }
});

test('of a policy of taste draws alone, the best rooms have the chance that tasteDrawChance gives them', () => {
  const world = smallWorld({}, {}, { policy: { taste: 1, popularity: 0, random: 0 } });
  world.openRooms(SETTINGS.startMs);
  const chances = [...new Oracle(world).viewChances('u3', 'live_stream')].sort((a, b) => b - a);
  for (const best of [0, 1, 3, 10]) {
    const sum = chances.slice(0, best).reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(sum - tasteDrawChance(best, 10)) < 1e-12, `${best}: ${sum}`);
  }
  // no room is compared with all others: what is equal in worlds of other sizes is the share
  assert.equal(tasteDrawChance(50, 500), tasteDrawChance(500, 5_000));
});

test('the chances of being shown sum to 1 and order what the logging policy shows', () => {
  const world = smallWorld();
  world.openRooms(SETTINGS.startMs);
  const oracle = new Oracle(world);
  const expected: Record<string, number> = {};
  const shown: Record<string, number> = {};
  let asked: { scenario: 'product_card' | 'short_video' | 'live_stream'; top: Set<string> } | undefined;
  world.onRequest = ({ userId, scenario }) => {
    const chances = oracle.viewChances(userId, scenario);
    assert.ok(Math.abs(chances.reduce((a, b) => a + b, 0) - 1) < 1e-9);
    const top = [...chances.keys()].sort((a, b) => chances[b]! - chances[a]!).slice(0, 5);
    asked = { scenario, top: new Set(top.map((c) => oracle.itemId(scenario, c))) };
    expected[scenario] = (expected[scenario] ?? 0) + top.reduce((s, c) => s + chances[c]!, 0);
  };
  let first = 0;
  for (let i = 0; i < 60_000; i++) {
    const record = world.next();
    // the first place of a page is drawn without anything before it
    if (record.topic !== 'exposures' || record.value.position !== 0) continue;
    first++;
    if (asked!.top.has(record.value.itemId)) shown[asked!.scenario] = (shown[asked!.scenario] ?? 0) + 1;
  }
  assert.ok(first > 5_000);
  for (const [scenario, sum] of Object.entries(expected))
    assert.ok(
      Math.abs(shown[scenario]! - sum) < 4 * Math.sqrt(sum),
      `${scenario}: the five likeliest were shown ${shown[scenario]} times, expected ${sum}`,
    );
});
