/**
 * The oracle on logs of a few records: what it says of a history when a sibling of the request is read late, or an event
 * perhaps after the sample had left, and of a SID that came while the sample was due.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Click, Exposure, Item, TrainingSample } from '@onemall/contracts';
import { eventRow, lateRow, sampleRow } from '../oracle/dump.ts';
import { type OracleRules, type Verdict, verdictOn } from '../oracle/verify.ts';
import { Catalogue } from '../src/stages/catalogue.ts';
import { ByteJoin, wireBytes } from './byte-join.ts';
import { RULES } from './drive.ts';
import type { JoinOutput, LogRecord } from './plain/log-record.ts';
import { GRACE_MS, OUT_OF_ORDERNESS_MS, SCENARIOS } from './traffic.ts';

const T = 1_000_000;
const CONFIG: OracleRules = {
  scenarios: SCENARIOS,
  outOfOrdernessMs: OUT_OF_ORDERNESS_MS,
  graceMs: GRACE_MS,
  maxDelayMs: 600_000,
  inputFreshnessMs: 200,
  allowedClockSkewMs: 60_000,
  historyLength: RULES.historyLength,
  emit: ['final'],
};
/** Append times further apart than inputs stay fresh, so that the oracle is sure of what was read first. */
const APART_MS = 1_000;
const CLOSES_AFTER_MS = SCENARIOS.product_card.buyWindowMs + GRACE_MS;

const exposureOf = (exposureId: string, eventTimeMs: number, more: Partial<Exposure> = {}): Exposure => ({
  exposureId,
  userId: 'u1',
  itemId: `of ${exposureId}`,
  scenario: 'product_card',
  eventTimeMs,
  requestId: 'r1',
  requestTimeMs: T - 10,
  position: 0,
  watchMs: null,
  priceCents: 100,
  requestFeatures: { ints: [], floats: [] },
  ...more,
});
/** Of the same request, and by a clock that is a little behind also before it. */
const CLICK: Click = {
  actionId: 'c1',
  exposureId: 'sibling',
  userId: 'u1',
  itemId: 'of sibling',
  eventTimeMs: T - 20,
};
const SIBLING = exposureOf('sibling', T);
const TARGET = exposureOf('target', T + 400);
const TARGET_CLOSES_MS = T + 400 + CLOSES_AFTER_MS;
/** An event of someone else, which moves the watermark to that time. */
const moving = (watermarkMs: number): Exposure =>
  exposureOf(`until ${watermarkMs}`, watermarkMs + OUT_OF_ORDERNESS_MS, { userId: 'u2', requestId: 'r2' });

class Story {
  readonly #catalogue = new Catalogue();
  readonly join = new ByteJoin(0, { ...RULES, emitPositives: false }, this.#catalogue, { watermarkMs: 0 });
  readonly #items: object[] = [];
  readonly #records: LogRecord[] = [];
  readonly #next = { exposures: 0, clicks: 0, buys: 0 };
  #appendTimeMs = T;

  read(value: Exposure | Click, appendedAfterMs = APART_MS): this {
    const topic = 'requestId' in value ? 'exposures' : 'clicks';
    this.#appendTimeMs += appendedAfterMs;
    const record = {
      topic,
      event: value,
      partition: 0,
      offset: this.#next[topic]++,
      appendTimeMs: this.#appendTimeMs,
      payload: wireBytes(topic, value as Exposure & Click),
    } as LogRecord;
    this.#records.push(record);
    this.join.feed(record);
    return this;
  }
  /** An item that changes its category. */
  sells(itemId: string, ...categories: { category: string; validFromMs: number }[]): this {
    for (const { category, validFromMs } of categories) {
      const item = {
        itemId,
        category,
        validFromMs,
        title: '',
        tags: [],
        priceCents: 1,
        sellerId: 's',
      } as const;
      this.#catalogue.putItem(itemId, item as unknown as Item, validFromMs);
      const row = { itemId, validFrom: validFromMs, seq: this.#items.length, ts: 0, visible: 0, category };
      this.#items.push({ ...row, facts: '' });
    }
    return this;
  }
  readThenAdvance(watermarkMs: number, appendedAfterMs = APART_MS): this {
    this.read(moving(watermarkMs), appendedAfterMs).join.advance(watermarkMs);
    return this;
  }

  /** @param change what would have left instead */
  async verdict(
    change: (outputs: JoinOutput[]) => void = () => {},
    sids: readonly object[] = [],
  ): Promise<{ verdict: Verdict; clicks: string[] }> {
    const outputs = this.join.takeOutputs();
    change(outputs);
    const values = outputs.flatMap((o) => (o.kind === 'sample' ? [o.sample] : []));
    const source = { partition: 0, timestampMs: this.#appendTimeMs };
    const rows = {
      commits: (['exposures', 'clicks', 'buys'] as const).map((topic) => ({
        topic,
        part: 0,
        off: this.#next[topic],
        w: this.join.watermarkMs,
      })),
      events: this.#records.map(({ topic, event, offset, appendTimeMs }) =>
        eventRow(event!, { topic, partition: 0, offset, timestampMs: appendTimeMs }, event!.userId),
      ),
      samples: values.map((v, offset) => sampleRow(v, { ...source, topic: 'training-samples', offset })),
      sids,
      items: this.#items,
      late: outputs.flatMap((o) => (o.kind === 'late' ? [lateRow(o.event)] : [])),
    };
    const verdict = await verdictOn(CONFIG, async (db) => {
      for (const [table, values] of Object.entries(rows))
        if (values.length > 0) await db.insert({ table, values: [...values], format: 'JSONEachRow' });
    });
    const target = values.find((v) => v.exposure.exposureId === 'target');
    return { verdict, clicks: target?.history.clicks.map((c) => c.itemId) ?? [] };
  }
}

const finalsOf = (outputs: JoinOutput[]) => outputs.flatMap((o) => (o.kind === 'sample' ? [o.sample] : []));
const withClick = (outputs: JoinOutput[]): void => {
  for (const sample of finalsOf(outputs).filter((s) => s.exposure.exposureId === 'target'))
    sample.history.clicks = [{ itemId: CLICK.itemId, eventTimeMs: CLICK.eventTimeMs, category: '' }];
};
const withoutClick = (outputs: JoinOutput[]): void => {
  for (const sample of finalsOf(outputs)) sample.history.clicks = [];
};
const DIFFERENT = [{ what: 'different', xid: 'target', kind: 'FINAL', fields: ['history.clicks'] }];

test('a click of a sibling that is read after the sample left is in its history', async () => {
  const story = (): Story =>
    new Story()
      .read(CLICK)
      .read(TARGET)
      .readThenAdvance(TARGET_CLOSES_MS + 5_000)
      .read(SIBLING);
  const { verdict, clicks } = await story().verdict();
  assert.deepEqual(clicks, ['of sibling']);
  assert.deepEqual(verdict.firstDifferences, []);
  assert.deepEqual([verdict.finals, verdict.unsureHistories], [1, 0]);
  assert.deepEqual((await story().verdict(withoutClick)).verdict.firstDifferences, DIFFERENT);
});

test('a click of a sibling that was late, but read before the sample left, is not in its history', async () => {
  const story = (): Story =>
    new Story()
      .read(CLICK)
      .read(TARGET)
      .readThenAdvance(T + CLOSES_AFTER_MS + 10)
      .read(SIBLING)
      .readThenAdvance(TARGET_CLOSES_MS);
  const { verdict, clicks } = await story().verdict();
  assert.deepEqual(clicks, []);
  assert.deepEqual(verdict.firstDifferences, []);
  assert.deepEqual([verdict.finals, verdict.fates.late, verdict.unsureHistories], [1, 2, 0]);
  assert.deepEqual((await story().verdict(withClick)).verdict.firstDifferences, DIFFERENT);
});

test('a sibling that was in time was read before it closed, whatever append times tell', async () => {
  const story = (): Story =>
    new Story().read(CLICK).read(TARGET).read(SIBLING).readThenAdvance(TARGET_CLOSES_MS, 1);
  const { verdict, clicks } = await story().verdict();
  assert.deepEqual(clicks, []);
  assert.deepEqual(verdict.firstDifferences, []);
  assert.deepEqual([verdict.finals, verdict.exactHistories, verdict.unsureHistories], [2, 6, 0]);
  assert.deepEqual((await story().verdict(withClick)).verdict.firstDifferences, DIFFERENT);
});

test('of a sibling that perhaps came after the sample left, a click may be in its history or not', async () => {
  const story = (): Story =>
    new Story()
      .read(CLICK)
      .read(TARGET)
      .read(exposureOf('sibling', T + 800))
      .readThenAdvance(TARGET_CLOSES_MS, 1);
  for (const change of [withClick, withoutClick]) {
    const { verdict } = await story().verdict(change);
    assert.deepEqual(verdict.firstDifferences, []);
    assert.deepEqual([verdict.finals, verdict.exactHistories, verdict.unsureHistories], [1, 2, 1]);
  }
});

/** Clicks by their item: how long before T. B is b with the category that it has only after the request. */
const AGO_MS: Record<string, number> = {
  a: 20,
  b: 30,
  B: 30,
  never: 35,
  p: 40,
  c: 50,
  d: 60,
  e: 70,
  older: 80,
};
/** Clicks surely read before the sample left, clicks perhaps read before, and what the sample carries. */
type History = [why: string, sure: string, perhaps: string, carries: string];
const itemsOf = (clicks: string): string[] => clicks.split(' ').filter((item) => item !== '');
const entry = (item: string): TrainingSample['history']['clicks'][number] => ({
  itemId: item.toLowerCase(),
  eventTimeMs: T - AGO_MS[item]!,
  category: { b: 'earlier', B: 'later' }[item] ?? '',
});

/** A user each, with an exposure that is named as the history. */
async function judgeHistories(histories: readonly History[]): Promise<Verdict> {
  const story = new Story().sells(
    'b',
    { category: 'earlier', validFromMs: 0 },
    { category: 'later', validFromMs: T - 5 },
  );
  const read = ([why, sure, perhaps]: History, of: 'sure' | 'perhaps'): void => {
    for (const [n, itemId] of itemsOf(of === 'sure' ? sure : perhaps).entries()) {
      const click = { actionId: `${why} ${of} ${n}`, exposureId: null, userId: why, itemId };
      // Within the time that inputs stay fresh nothing tells what was read first.
      story.read({ ...click, eventTimeMs: T - AGO_MS[itemId]! }, of === 'sure' ? APART_MS : 1);
    }
  };
  for (const history of histories) read(history, 'sure');
  for (const [why] of histories) story.read(exposureOf(why, T + 400, { userId: why, requestId: why }));
  for (const history of histories) read(history, 'perhaps');
  const { verdict } = await story.readThenAdvance(TARGET_CLOSES_MS, 1).verdict((outputs) => {
    for (const sample of finalsOf(outputs)) {
      const [, sure, perhaps, carries] = histories.find(([why]) => why === sample.exposure.exposureId)!;
      const read = [...itemsOf(sure), ...itemsOf(perhaps)].sort((x, y) => AGO_MS[x]! - AGO_MS[y]!);
      assert.deepEqual(
        sample.history.clicks.map((c) => ({ ...c })),
        read.slice(0, RULES.historyLength).map(entry),
      );
      sample.history.clicks = itemsOf(carries).map(entry);
    }
  });
  return verdict;
}

test('a history is right with and without an event that was perhaps read before', async () => {
  const histories: History[] = [
    ['it was', 'a b c', 'p', 'a b p c'],
    ['it was not', 'a b c', 'p', 'a b c'],
    ['nothing else', '', 'p', ''],
    ['of two the one', 'a c', 'b p', 'a p c'],
    ['of six the newest five', 'a b c d e', 'p', 'a b p c d'],
    ['five without it', 'a b c d e', 'p', 'a b c d e'],
    ['of three equal ones one is sure', 'a b', 'b b', 'a b'],
    ['one more', 'a b', 'b b', 'a b b'],
    ['all', 'a b', 'b b', 'a b b b'],
  ];
  const exact: History = ['older than what there is room for', 'a b c d e', 'older', 'a b c d e'];
  const verdict = await judgeHistories([...histories, exact]);
  assert.deepEqual(verdict.firstDifferences, []);
  assert.deepEqual([verdict.finals, verdict.different], [10, 0]);
  assert.deepEqual([verdict.exactHistories, verdict.unsureHistories], [21, 9]);
});

test('whatever was perhaps read before, a history that cannot be is found', async () => {
  for (const histories of [
    [
      ['a sure one is missing', 'a b c', 'p', 'a p c'],
      ['the newest is missing', 'a b c', 'p', 'b p c'],
      ['the oldest is missing', 'a b c', 'p', 'a b p'],
      ['all sure ones are missing', 'a b c', 'p', 'p'],
      ['one that nobody did', 'a b c', 'p', 'a never b c'],
      ['it is there twice', 'a b c', 'p', 'a b p p c'],
      ['a sure one twice', 'a b c', 'p', 'a b b c'],
      ['the wrong order', 'a b c', 'p', 'a p b c'],
    ],
    [
      ['the wrong order without it', 'a b c', 'p', 'a c b'],
      ['the category of after the request', 'a b c', 'p', 'a B p c'],
      ['four of the newest five', 'a b c d e', 'p', 'a b p c'],
      ['not the newest five', 'a b c d e', 'p', 'a b p c e'],
      ['more than five', 'a b c d e', 'p', 'a b p c d e'],
      ['older than what there is room for', 'a b c d e', 'older', 'a b c d older'],
      ['less than the sure one of equal ones', 'a b', 'b b', 'a'],
      ['more than all equal ones', 'a b', 'b b', 'a b b b b'],
    ],
  ] as History[][]) {
    const verdict = await judgeHistories(histories);
    const found = histories.map(([why]) => ({
      ...{ what: 'different', xid: why, kind: 'FINAL', fields: ['history.clicks'] },
    }));
    const byXid = (x: { xid: string }, y: { xid: string }): number => (x.xid < y.xid ? -1 : 1);
    assert.deepEqual((verdict.firstDifferences as typeof found).sort(byXid), found.sort(byXid));
    assert.equal(verdict.different, histories.length);
  }
});

/** The SID of the target, stamped long before it was due, and visible to readers from some moment on. */
const sidVisibleFrom = (visible: number) => ({
  ...{ id: TARGET.itemId, live: 0, version: 1, validFrom: 0, seq: 0, ts: T - 60_000, visible },
  ...{ sid: JSON.stringify(['product_card', 1, 3, 4, 5]), selling: '[]' },
});
const withSid = (outputs: JoinOutput[]): void => {
  for (const sample of finalsOf(outputs))
    if (sample.exposure.exposureId === 'target')
      sample.sid = { scenario: 'product_card', codebookVersion: 1, c1: 3, c2: 4, c3: 5 };
};

test('a SID must be in a sample that became due after it was visible, and may be in one that was due before', async () => {
  // the record that moves the watermark past the target's end is appended 2 s after T
  const story = (): Story => new Story().read(TARGET).readThenAdvance(TARGET_CLOSES_MS);
  const without = () => {};
  for (const [visible, change, different] of [
    [T + 1_000, withSid, 0],
    [T + 1_000, without, 1],
    [T + 2_500, withSid, 0],
    [T + 2_500, without, 0],
  ] as const) {
    const { verdict } = await story().verdict(change, [sidVisibleFrom(visible)]);
    assert.deepEqual(
      verdict.firstDifferences,
      different ? [{ what: 'different', xid: 'target', kind: 'FINAL', fields: ['sid'] }] : [],
      `visible ${visible - T} ms after T`,
    );
    assert.equal(verdict.different, different);
  }
});

test('a SID that is of no table row is different, however late rows came', async () => {
  const { verdict } = await new Story().read(TARGET).readThenAdvance(TARGET_CLOSES_MS).verdict(withSid);
  assert.equal(verdict.different, 1);
});

test('labels that cannot be told exactly are held against what they may be', async () => {
  const click = (actionId: string, eventTimeMs: number, exposureId: string | null): Click => ({
    ...{ actionId, exposureId, userId: 'u1', itemId: TARGET.itemId, eventTimeMs },
  });
  const story = (): Story =>
    new Story()
      .read(TARGET)
      .read(click('named', T + 1_500, 'target'))
      .read(click('unnamed', T + 1_000, null))
      .read(exposureOf('second', T + 700, { itemId: TARGET.itemId }), 1)
      .readThenAdvance(TARGET_CLOSES_MS + 1_000, 1);
  const ofTarget = (change: (labels: TrainingSample) => void) => (outputs: JoinOutput[]) =>
    finalsOf(outputs)
      .filter((s) => s.exposure.exposureId === 'target')
      .forEach(change);
  for (const [change, fields] of [
    // As if the click that names no exposure had been decided before the second was read.
    [(s) => Object.assign(s, { clickDelayMs: 600 }), null],
    [
      (s) => Object.assign(s, { clickDelayMs: 601, bought: true, buyDelayMs: 5, buyQuantity: 1 }),
      ['clickDelayMs: no such click', 'buyDelayMs: no such buy', 'more than was bought'],
    ],
    [
      (s) => Object.assign(s, { clicked: false, clickDelayMs: null, firstPositive: false }),
      ['a click is left out'],
    ],
  ] as [(s: TrainingSample) => void, string[] | null][]) {
    const { verdict } = await story().verdict(ofTarget(change));
    assert.deepEqual(
      verdict.firstDifferences,
      fields ? [{ what: 'different', xid: 'target', kind: 'FINAL', fields }] : [],
    );
    assert.equal(verdict.unsureLabels, 2);
  }
});
