/** The invariants of the join that need no broker, each by its number in the README. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Buy, Click, Exposure } from '@onemall/contracts';
import { Catalogue, forgettableBeforeMs, splitSidKey } from '../src/stages/catalogue.ts';
import { allPins, formatMetadata, packPins, parseMetadata } from '../src/stages/commit-metadata.ts';
import { byTopic, LOG_TOPICS } from '../src/stages/log-record.ts';
import { InputMerge } from '../src/stages/take-in-order.ts';
import { ByteJoin, passOver, wireBytes } from './byte-join.ts';
import { RULES, WINDOWS } from './drive.ts';
import type { JoinOutput, LogRecord } from './plain/log-record.ts';

const T = 1_000_000;
const DAY_MS = 86_400_000;
let offset = 0;

const exposureOf = (more: Partial<Exposure> = {}): Exposure => ({
  exposureId: 'e1',
  userId: 'u1',
  itemId: 'i1',
  scenario: 'product_card',
  eventTimeMs: T,
  requestId: 'r1',
  requestTimeMs: T - 10,
  position: 0,
  watchMs: null,
  priceCents: 100,
  requestFeatures: { ints: [], floats: [] },
  ...more,
});
const clickOf = (more: Partial<Click> = {}): Click => ({
  actionId: 'c1',
  exposureId: 'e1',
  userId: 'u1',
  itemId: 'i1',
  eventTimeMs: T + 500,
  ...more,
});
const buyOf = (more: Partial<Buy> = {}): Buy => ({
  ...clickOf({ actionId: 'b1', eventTimeMs: T + 900 }),
  priceCents: 250,
  quantity: 2,
  ...more,
});
const record = (topic: LogRecord['topic'], event: Exposure | Click | Buy): LogRecord =>
  ({
    topic,
    event,
    partition: 0,
    offset: offset++,
    appendTimeMs: 2 * DAY_MS,
    payload: wireBytes(topic, event as Exposure & Click & Buy),
  }) as LogRecord;

function newJoin(more: Partial<typeof RULES> = {}): ByteJoin {
  return new ByteJoin(0, { ...RULES, ...more }, new Catalogue(), { watermarkMs: 0 });
}
const kinds = (outputs: readonly JoinOutput[]): string[] =>
  outputs.map((o) =>
    o.kind === 'sample' ? o.sample.kind : o.kind === 'late' ? `${o.event.reason} ${o.event.topic}` : 'DEAD',
  );
const finalOf = (outputs: readonly JoinOutput[]) =>
  outputs.flatMap((o) => (o.kind === 'sample' && o.sample.kind === 'FINAL' ? [o.sample] : []));

test('invariant 6: W is monotonic and survives a restart in the metadata of the commit', () => {
  const join = newJoin();
  join.advance(T);
  join.advance(T - 500);
  assert.equal(join.watermarkMs, T);
  const meta = { watermarkMs: T, restoreOffset: 56, numPartitions: 4 };
  assert.deepEqual(parseMetadata(formatMetadata(meta)), { ...meta, pins: new Map() });
  assert.equal(formatMetadata(meta), `${T},56,4`);
  for (const pins of ['C12=34', 'X1.2', 'C.4', 'C1'])
    assert.throws(() => parseMetadata(formatMetadata(meta, pins)), /Expected offset metadata/, pins);
  assert.throws(() => parseMetadata('hello'), /Expected offset metadata .* got "hello"/);
  assert.throws(() => parseMetadata(undefined), /Expected offset metadata/);
});

test('hundreds of pins go into the metadata of the three offsets and come back; what has no room is counted', () => {
  const meta = { watermarkMs: T, restoreOffset: 1e9, numPartitions: 4 };
  const pinsOf = (count: number): Map<string, number> =>
    new Map(
      Array.from({ length: count }, (_, i): [string, number] => [
        `${i % 3 === 0 ? 'B' : 'C'}${1e9 - i * 701}`,
        3e9 + i * 977,
      ]),
    );
  for (const count of [0, 1, 7, 800]) {
    const { texts, numLeftOut } = packPins(pinsOf(count));
    assert.equal(numLeftOut, 0);
    const metas = byTopic((topic) => parseMetadata(formatMetadata(meta, texts[topic])));
    assert.deepEqual([...allPins(metas)].sort(), [...pinsOf(count)].sort());
  }
  const { texts, numLeftOut } = packPins(pinsOf(3_000));
  const metas = byTopic((topic) => parseMetadata(formatMetadata(meta, texts[topic])));
  assert.equal(numLeftOut, 3_000 - allPins(metas).size);
  assert.ok(numLeftOut > 1_000);
  for (const topic of LOG_TOPICS) assert.ok(formatMetadata(meta, texts[topic]).length <= 4_096);
});

test('invariant 7: exactly one FINAL, at most one CLICK and BUY, and one record is the first positive', () => {
  const join = newJoin();
  join.feed(record('exposures', exposureOf()));
  for (const [id, atMs] of [
    ['c1', 500],
    ['c2', 300],
  ] as const)
    join.feed(record('clicks', clickOf({ actionId: id, eventTimeMs: T + atMs })));
  for (const [id, atMs] of [
    ['b1', 300],
    ['b2', 900],
  ] as const)
    join.feed(record('buys', buyOf({ actionId: id, eventTimeMs: T + atMs })));
  join.advance(T + 1_000);
  join.advance(T + DAY_MS);
  const samples = join.takeOutputs().flatMap((o) => (o.kind === 'sample' ? [o.sample] : []));
  assert.deepEqual(
    samples.map((s) => [
      s.kind,
      s.firstPositive,
      s.clickDelayMs,
      s.buyDelayMs,
      s.buyValueCents,
      s.buyQuantity,
    ]),
    [
      ['CLICK', true, 300, null, 0, 0],
      ['BUY', false, 300, 300, 500, 2],
      ['FINAL', false, 300, 300, 1_000, 4],
    ],
  );
});

test('in final-only mode the FINAL of a positive is the first positive', () => {
  const join = newJoin({ emitPositives: false });
  join.feed(record('exposures', exposureOf()));
  join.feed(record('exposures', exposureOf({ exposureId: 'e2', requestId: 'r2' })));
  join.feed(record('clicks', clickOf()));
  join.advance(T + DAY_MS);
  assert.deepEqual(
    finalOf(join.takeOutputs()).map((s) => [s.exposure.exposureId, s.firstPositive]),
    [
      ['e1', true],
      ['e2', false],
    ],
  );
});

test('invariant 8: copies are dropped and counted, before and after closing', () => {
  const join = newJoin();
  const feedAll = (): void => {
    join.feed(record('exposures', exposureOf()));
    join.feed(record('clicks', clickOf()));
    join.feed(record('buys', buyOf()));
  };
  feedAll();
  feedAll();
  join.advance(WINDOWS.closesAtMs('product_card', T));
  feedAll();
  assert.deepEqual(kinds(join.takeOutputs()), ['CLICK', 'BUY', 'FINAL']);
  assert.deepEqual(join.takeCounts(), { late: 0, orphans: 0, duplicates: 6, withoutSid: 3, dead: 0 });
});

test('invariant 8: a copy is known to the last millisecond of its time, and late from the next on', () => {
  const join = newJoin({ emitPositives: false });
  const events: [LogRecord['topic'], Exposure | Click | Buy][] = [
    ['exposures', exposureOf()],
    ['clicks', clickOf({ eventTimeMs: T })],
    ['buys', buyOf({ eventTimeMs: T })],
  ];
  const feedAll = (): void => {
    for (const [topic, event] of events) join.feed(record(topic, event));
  };
  feedAll();
  join.advance(T + WINDOWS.knownSpanMs - 1);
  feedAll();
  assert.deepEqual(kinds(join.takeOutputs()), ['FINAL']);
  assert.equal(join.takeCounts().duplicates, 3);
  join.advance(T + WINDOWS.knownSpanMs);
  feedAll();
  assert.deepEqual(kinds(join.takeOutputs()), ['LATE exposures', 'LATE clicks', 'LATE buys']);
  assert.equal(join.takeCounts().duplicates, 0);
});

test('invariant 9: a click that comes before its exposure joins it, with a delay of at least 0', () => {
  const join = newJoin();
  join.feed(record('clicks', clickOf({ eventTimeMs: T - 200 })));
  assert.equal(join.waitingActions, 1);
  join.advance(T - 100);
  join.feed(record('exposures', exposureOf()));
  assert.equal(join.waitingActions, 0);
  join.advance(T + DAY_MS);
  assert.deepEqual(
    finalOf(join.takeOutputs()).map((s) => [s.clicked, s.clickDelayMs]),
    [[true, 0]],
  );
});

test('invariant 10: late and orphan events leave with their reason and are counted', () => {
  const join = newJoin();
  join.feed(record('clicks', clickOf({ actionId: 'orphan', exposureId: 'never' })));
  join.feed(record('clicks', clickOf({ actionId: 'waits', exposureId: 'late' })));
  join.advance(WINDOWS.closesAtMs('product_card', T));
  // Too late itself, and takes with it what waited for it.
  join.feed(record('exposures', exposureOf({ exposureId: 'late' })));
  join.feed(record('buys', buyOf({ exposureId: 'late' })));
  join.advance(T + DAY_MS);
  join.feed(record('clicks', clickOf({ actionId: 'much-too-late' })));
  const outputs = join.takeOutputs();
  assert.deepEqual(kinds(outputs), [
    'LATE exposures',
    'LATE clicks',
    'LATE buys',
    'ORPHAN clicks',
    'LATE clicks',
  ]);
  const { late, orphans } = join.takeCounts();
  assert.deepEqual([late, orphans], [4, 1]);
  const first = outputs[1]!;
  assert.ok(
    first.kind === 'late' &&
      first.event.payload.equals(wireBytes('clicks', clickOf({ actionId: 'waits', exposureId: 'late' }))),
  );
});

test('invariant 12: a dead letter leaves through the outputs of the transaction and moves no watermark', () => {
  const join = newJoin();
  const bad: LogRecord = {
    topic: 'clicks',
    event: null,
    key: null,
    partition: 0,
    offset: 5,
    appendTimeMs: T,
    payload: null,
    bad: { reason: 'UNDECODABLE', detail: 'nothing of it can be read' },
  };
  assert.equal(join.feed(bad), null);
  assert.deepEqual(kinds(join.takeOutputs()), ['DEAD']);
  assert.equal(join.takeCounts().dead, 1);
});

test('invariant 11: while one input has not answered, nothing of the others is taken past it', () => {
  const start = { exposures: 0, clicks: 0, buys: 0 };
  const merge = new InputMerge({ outOfOrdernessMs: 0, inputFreshnessMs: 1_000, maxDelayMs: 10 }, start);
  const both = ['e1', 'e2'].map((exposureId) => record('exposures', exposureOf({ exposureId })));
  merge.fetched({
    topic: 'exposures',
    records: passOver(both),
    nextOffset: 2,
    highWatermark: 2,
    sentAtMs: 1,
  });
  merge.fetched({ topic: 'clicks', records: passOver([]), nextOffset: 0, highWatermark: 0, sentAtMs: 1 });
  assert.equal(merge.nextTopic(2), undefined);
  // At its end as far as transactions go, but an open one may still bring older events.
  merge.fetched({ topic: 'buys', records: passOver([]), nextOffset: 0, highWatermark: 3, sentAtMs: 1 });
  assert.equal(merge.nextTopic(2), 'exposures');
  assert.equal(merge.peek('exposures').offset, both[0]!.offset);
  merge.taken('exposures', T, 2);
  merge.drop('exposures');
  assert.equal(merge.nextTopic(2), undefined);
  assert.equal(merge.watermark.advance(5_000), 0);
  merge.fetched({ topic: 'buys', records: passOver([]), nextOffset: 3, highWatermark: 3, sentAtMs: 5_001 });
  merge.fetched({ topic: 'clicks', records: passOver([]), nextOffset: 0, highWatermark: 0, sentAtMs: 5_001 });
  assert.equal(merge.nextTopic(5_002), 'exposures');
  assert.equal(merge.peek('exposures').offset, both[1]!.offset);
});

test('an action names an exposure of another user: it waits and becomes an orphan', () => {
  const join = newJoin();
  join.feed(record('exposures', exposureOf()));
  join.feed(record('clicks', clickOf({ userId: 'u2' })));
  join.advance(T + DAY_MS);
  assert.deepEqual(kinds(join.takeOutputs()), ['FINAL', 'ORPHAN clicks']);
});

test('histories hold what came before the request, and nothing of the same request', () => {
  const join = newJoin();
  join.feed(
    record(
      'exposures',
      exposureOf({ exposureId: 'old', requestId: 'r0', eventTimeMs: T - 900, itemId: 'i0' }),
    ),
  );
  join.feed(
    record('clicks', clickOf({ actionId: 'c0', exposureId: 'old', eventTimeMs: T - 700, itemId: 'i0' })),
  );
  join.feed(record('exposures', exposureOf({ exposureId: 'sibling', eventTimeMs: T - 20, itemId: 'i9' })));
  join.feed(record('exposures', exposureOf()));
  join.advance(T + DAY_MS);
  const own = finalOf(join.takeOutputs()).find((s) => s.exposure.exposureId === 'e1');
  assert.deepEqual(JSON.parse(JSON.stringify(own?.history)), {
    exposures: [{ itemId: 'i0', eventTimeMs: T - 900, category: '' }],
    clicks: [{ itemId: 'i0', eventTimeMs: T - 700, category: '' }],
    buys: [],
  });
});

test('what was shown in the same request is known to the end of its time, whoever leaves at that moment', () => {
  const clicksOf = (laterMs: number): string[] => {
    const join = newJoin();
    const leavesMs = T + WINDOWS.knownSpanMs + laterMs;
    const eventTimeMs = T + leavesMs - WINDOWS.closesAtMs('product_card', T);
    const request = { requestId: 'r1', requestTimeMs: eventTimeMs - 1 };
    join.feed(record('exposures', exposureOf({ exposureId: 'e0', ...request })));
    join.feed(record('clicks', clickOf({ exposureId: 'e0' })));
    join.feed(record('exposures', exposureOf({ eventTimeMs, ...request })));
    join.advance(leavesMs);
    const sample = finalOf(join.takeOutputs()).find((s) => s.exposure.exposureId === 'e1')!;
    return sample.history.clicks.map((c) => c.itemId);
  };
  assert.deepEqual(clicksOf(0), []);
  assert.deepEqual(clicksOf(1), ['i1']);
});

test('an exposure months after its request leaves as it came', () => {
  const join = newJoin();
  const exposure = exposureOf({ eventTimeMs: 100 * DAY_MS, requestTimeMs: 7 });
  join.feed(record('exposures', exposure));
  join.advance(100 * DAY_MS);
  assert.equal(join.neededFromMs, 7);
  join.advance(101 * DAY_MS);
  assert.deepEqual(JSON.parse(JSON.stringify(finalOf(join.takeOutputs())[0]?.exposure)), exposure);
});

test('nothing may be forgotten while a partition does not say what it needs', () => {
  assert.equal(forgettableBeforeMs([], 10), null);
  assert.equal(forgettableBeforeMs([500, null], 10), null);
  assert.equal(forgettableBeforeMs([500, 300], 10), 290);
});

test('an open exposure keeps what was valid at its request, however long ago that was', () => {
  const join = newJoin();
  join.feed(record('exposures', exposureOf({ requestTimeMs: T - DAY_MS / 2 })));
  join.advance(T + 1);
  assert.equal(join.neededFromMs, T - DAY_MS / 2);
  join.advance(T + DAY_MS);
  assert.equal(join.neededFromMs, T + DAY_MS - WINDOWS.knownSpanMs);
});

test('the catalogue answers as of the request, from the newest codebook version that has the item', () => {
  const catalogue = new Catalogue();
  const sid = (codebookVersion: number, c1: number) => ({
    scenario: 'product_card',
    codebookVersion,
    c1,
    c2: 0,
    c3: 0,
  });
  const put = (version: number, c1: number, validFromMs: number): void =>
    catalogue.putItemSid(
      `a:b:${version}`,
      { itemId: 'a:b', sid: sid(version, c1), validFromMs, reason: 'NEW_ITEM', createdMs: 0 },
      validFromMs,
    );
  put(1, 10, 0);
  put(1, 11, 100);
  assert.equal(catalogue.sid('a:b', 99)?.c1, 10);
  assert.equal(catalogue.sid('a:b', 100)?.c1, 11);
  put(2, 20, 0);
  assert.equal(catalogue.sid('a:b', 99)?.c1, 20);
  catalogue.putItemSid('a:b:2', null, 150);
  assert.equal(catalogue.sid('a:b', 149)?.c1, 20, 'a page shown before the item was removed');
  assert.equal(catalogue.sid('a:b', 150)?.c1, 11, 'the older codebook version still has it');
  catalogue.putItemSid('a:b:1', null, 150);
  assert.equal(catalogue.sid('a:b', 149)?.c1, 20);
  assert.equal(catalogue.sid('a:b', 150), null);
  put(2, 21, 151);
  assert.deepEqual([catalogue.sid('a:b', 150), catalogue.sid('a:b', 151)?.c1], [null, 21], 'sold again');
  catalogue.putLiveSid(
    'room:1',
    {
      liveId: 'room',
      sid: null,
      validFromMs: 5,
      reason: 'PRODUCT_CHANGE',
      sellingItemIds: ['a'],
      explainingItemId: null,
      sourcePartition: 0,
      sourceOffset: 0,
      createdMs: 0,
    },
    6,
  );
  assert.equal(catalogue.sid('room', 5), null);
  assert.deepEqual(catalogue.sellingItemIds('room', 5), ['a']);
  assert.deepEqual(catalogue.sellingItemIds('room', 4), []);
  catalogue.putLiveSid('room:1', null, 50);
  assert.deepEqual(catalogue.sellingItemIds('room', 49), ['a'], 'a page shown before the room closed');
  assert.deepEqual(catalogue.sellingItemIds('room', 50), []);
  assert.deepEqual(splitSidKey('a:b:2'), { id: 'a:b', codebookVersion: 2 });
});
