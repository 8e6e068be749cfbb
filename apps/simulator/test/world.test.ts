import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { encodeValue } from '@onemall/contracts';
import { readWorld } from '../src/adapters/world-file.ts';
import { IN_ORDER } from '../src/world/disorder.ts';
import { World } from '../src/world/world.ts';
import { ofTopic, SETTINGS, smallWorld, take } from './small-world.ts';

const bytes = (world: World): string => {
  const records = [...world.openRooms(SETTINGS.startMs), ...take(world, 3_000)];
  const items = [...world.items(SETTINGS.startMs)].map((i) => encodeValue('items', 1, i).toString('base64'));
  return [...items, ...records.map((r) => encodeValue(r.topic, 1, r.value).toString('base64'))].join('\n');
};
const disorder = {
  outOfOrderShare: 0.2,
  outOfOrderMs: 300,
  duplicateShare: 0.1,
  duplicateMs: 1_000,
  lateShare: 0.02,
  lateMs: 60_000,
  missingExposureIdShare: 0.3,
};

test('the same seed and settings give the same bytes, another seed or run gives others', () => {
  const first = bytes(smallWorld({}, { disorder }));
  assert.equal(bytes(smallWorld({}, { disorder })), first);
  assert.notEqual(bytes(smallWorld({}, { disorder, seed: 8 })), first);
  assert.notEqual(bytes(smallWorld({}, { disorder, run: 1 })), first);
});

test('the code draws the evaluation world as it did when its first table was published', () => {
  const spec = {
    ...readWorld('evaluation'),
    productCards: 2_000,
    shortVideos: 1_500,
    liveRooms: 50,
    users: 100,
  };
  const world = new World(spec, SETTINGS);
  const records = [...world.openRooms(SETTINGS.startMs), ...take(world, 5_000)];
  const hash = createHash('sha256');
  for (const item of world.items(SETTINGS.startMs)) hash.update(encodeValue('items', 1, item));
  for (const r of records) hash.update(encodeValue(r.topic, 1, r.value));
  assert.equal(hash.digest('hex').slice(0, 16), '61f396e8b28977bb');
});

test('a later run has the same catalogue and tastes, and no id twice', () => {
  const a = smallWorld({}, { run: 0, runId: 'a' });
  const b = smallWorld({}, { run: 1, runId: 'b' });
  assert.deepEqual([...a.items(5)], [...b.items(5)]);
  assert.deepEqual(a.users.at(3).taste, b.users.at(3).taste);
  const ids = [a, b].flatMap((w) => {
    const records = [...w.openRooms(SETTINGS.startMs), ...take(w, 2_000)];
    return [
      ...ofTopic(records, 'exposures').map((e) => e.exposureId),
      ...ofTopic(records, 'clicks').map((c) => c.actionId),
      ...ofTopic(records, 'buys').map((x) => x.actionId),
      ...ofTopic(records, 'live-product-changes').map((c) => c.changeId),
    ];
  });
  assert.equal(new Set(ids).size, ids.length);
});

test('events come at the asked rate of event time', () => {
  const world = smallWorld({}, { eventsPerS: 400 });
  world.openRooms(SETTINGS.startMs);
  take(world, 20_000);
  const rate = 20_000 / ((world.nextAtMs() - SETTINGS.startMs) / 1000);
  assert.ok(Math.abs(rate - 400) < 20, `asked 400/s, got ${rate}`);
});

test('without disorder records come in event time, each action inside its window after its exposure', () => {
  const world = smallWorld();
  world.openRooms(SETTINGS.startMs);
  const records = take(world, 10_000);
  const exposures = new Map(ofTopic(records, 'exposures').map((e) => [e.exposureId, e]));
  let lastMs = 0;
  for (const { topic, value } of records) {
    if (topic === 'items') continue;
    assert.ok(value.eventTimeMs >= lastMs - 1, 'in order up to rounding');
    lastMs = Math.max(lastMs, value.eventTimeMs);
  }
  const clicks = ofTopic(records, 'clicks');
  const buys = ofTopic(records, 'buys');
  assert.ok(clicks.length > 500 && buys.length > 50);
  for (const [actions, windowMs] of [
    [clicks, 10_000],
    [buys, 20_000],
  ] as const)
    for (const action of actions) {
      const exposure = exposures.get(action.exposureId!)!;
      assert.equal(exposure.userId, action.userId);
      assert.equal(exposure.itemId, action.itemId);
      const delayMs = action.eventTimeMs - exposure.eventTimeMs;
      assert.ok(delayMs >= 0 && delayMs < windowMs, `${delayMs}`);
    }
});

test('disorder stays inside its bounds and has the asked shares', () => {
  const world = smallWorld({}, { disorder: { ...disorder, lateShare: 0 } });
  let handedMs = 0;
  let early = 0;
  const seen = new Map<string, number>();
  let copies = 0;
  for (let i = 0; i < 20_000; i++) {
    const at = world.nextAtMs();
    const { topic, value } = world.next();
    assert.ok(at >= handedMs);
    handedMs = at;
    if (topic === 'items' || topic === 'live-product-changes') continue;
    const id = topic === 'exposures' ? value.exposureId : value.actionId;
    const before = seen.get(id);
    if (before !== undefined) {
      copies++;
      assert.ok(at - before <= 1_000);
      continue;
    }
    seen.set(id, at);
    assert.ok(at - value.eventTimeMs <= 301, `handed over ${at - value.eventTimeMs} ms late`);
    if (at - value.eventTimeMs > 1) early++;
  }
  assert.ok(Math.abs(copies / seen.size - 0.1) < 0.02, `copies ${copies / seen.size}`);
  assert.ok(Math.abs(early / seen.size - 0.2) < 0.03, `out of order ${early / seen.size}`);
});

test('late events come after their windows closed, and are counted', () => {
  const world = smallWorld({}, { disorder: { ...IN_ORDER, lateShare: 0.05, lateMs: 30_000 } });
  let late = 0;
  for (let i = 0; i < 20_000; i++) {
    const at = world.nextAtMs();
    const { topic, value } = world.next();
    if (topic === 'items') continue;
    const afterMs = at - value.eventTimeMs;
    if (afterMs <= 1) continue;
    late++;
    assert.ok(afterMs >= 29_999 && afterMs <= 60_001, `${afterMs}`);
  }
  assert.ok(late > 500 && world.counts.late >= late);
});

test('the asked share of actions does not name its exposure', () => {
  const world = smallWorld({}, { disorder: { ...IN_ORDER, missingExposureIdShare: 0.5 } });
  const records = take(world, 10_000);
  const actions = [...ofTopic(records, 'clicks'), ...ofTopic(records, 'buys')];
  const missing = actions.filter((a) => a.exposureId === null).length / actions.length;
  assert.ok(Math.abs(missing - 0.5) < 0.05, `${missing}`);
});

test('rooms sell what their changes say, and a new room follows one that ended', () => {
  const world = smallWorld({}, { eventsPerS: 1_000 });
  const records = [...world.openRooms(SETTINGS.startMs), ...take(world, 200_000)];
  const selling = new Map<string, Set<string>>();
  let ended = 0;
  for (const change of ofTopic(records, 'live-product-changes')) {
    if (change.kind === 'ADDED')
      selling.set(change.liveId, (selling.get(change.liveId) ?? new Set()).add(change.itemId!));
    const products = selling.get(change.liveId)!;
    if (change.kind === 'REMOVED')
      assert.ok(products.delete(change.itemId!), 'a removed product was on sale');
    if (change.kind === 'EXPLAINING')
      assert.ok(products.has(change.itemId!), 'an explained product is on sale');
    if (change.kind === 'ROOM_ENDED') {
      selling.delete(change.liveId);
      ended++;
    }
  }
  assert.ok(ended > 5, `${ended} rooms ended`);
  assert.equal(selling.size, 10);
  for (const room of world.rooms.open)
    assert.deepEqual(
      [...selling.get(room.liveId)!].sort(),
      room.products.map((p) => world.catalogue.itemId(p)).sort(),
    );
});

test('scenarios that are not configured stay away; none in common is an error', () => {
  const { product_card } = SETTINGS.scenarios;
  const world = smallWorld({}, { scenarios: { product_card: product_card! } });
  assert.deepEqual(world.openRooms(SETTINGS.startMs), []);
  const records = take(world, 2_000);
  assert.ok(ofTopic(records, 'exposures').every((e) => e.scenario === 'product_card'));
  assert.ok([...world.items(0)].every((i) => i.scenario === 'product_card'));
  assert.throws(
    () => smallWorld({}, { scenarios: { hotel: product_card! } }),
    /none of the configured scenarios hotel/,
  );
});

test('a process that fell behind leaves requests out and keeps what users already did', () => {
  const world = smallWorld();
  take(world, 500);
  const resumeMs = SETTINGS.startMs + 60_000;
  world.skipTo(resumeMs);
  const later = take(world, 500);
  const shown = ofTopic(later, 'exposures').filter((e) => e.requestTimeMs > SETTINGS.startMs + 6_000);
  assert.ok(shown.length > 0 && shown.every((e) => e.requestTimeMs >= resumeMs));
});
