import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { readMapping } from '../src/adapters/mapping-file.ts';
import { sourceFiles } from '../src/adapters/read-tables.ts';
import { parseMapping } from '../src/mapping.ts';
import { collect, temporaryFolder, valuesOf, writeCsv, writeTrivago } from './fixtures.ts';

const shop = parseMapping(
  {
    name: 'shop',
    user: 'who',
    item: 'what',
    time: { column: 'when', unit: 's' },
    kind: { column: 'did', values: { view: 'exposure', click: 'click', buy: 'buy' } },
    price: { column: 'price', unit: 'major' },
    requestId: 'page',
    position: 'place',
  },
  'shop.json',
);
const HEADER = 'who,what,when,did,price,page,place';

test('a log of exposures, clicks and buys keeps its ids and comes out in order of time', async (t) => {
  const folder = await temporaryFolder(t);
  const second = await writeCsv(folder, 'b.csv', [HEADER, 'ann,lamp,120,buy,9.5,q,0']);
  const first = await writeCsv(folder, 'a.csv', [
    HEADER,
    'ann,lamp,110,click,9.5,q,0',
    'ann,"lamp",100,view,9.5,q,0',
    'ann,"rug, red",100,view,20,q,1',
  ]);
  const files = sourceFiles(folder);
  assert.deepEqual(files, [first, second]);
  const { all, bad, itemsSeen } = await collect(t, files, shop);
  assert.deepEqual(bad, []);
  assert.deepEqual(
    all.map((e) => [e.topic, e.value.itemId, e.timeMs]),
    [
      ['exposures', 'lamp', 100_000],
      ['exposures', 'rug, red', 100_000],
      ['clicks', 'lamp', 110_000],
      ['buys', 'lamp', 120_000],
    ],
  );
  const [lamp, rug] = valuesOf(all, 'exposures');
  assert.deepEqual(
    [lamp!.exposureId, lamp!.priceCents, rug!.exposureId, rug!.position],
    ['q:0', 950, 'q:1', 1],
  );
  assert.equal(valuesOf(all, 'clicks')[0]!.exposureId, null, 'last touch finds the exposure');
  assert.equal(valuesOf(all, 'buys')[0]!.priceCents, 950);
  assert.deepEqual(itemsSeen.map((i) => i.itemId).sort(), ['lamp', 'rug, red']);
});

test('bad rows are counted and named by file, row and column; the others flow', async (t) => {
  const folder = await temporaryFolder(t);
  const file = await writeCsv(folder, 'log.csv', [
    HEADER,
    'ann,lamp,100,view,9.5,q,0',
    ',lamp,100,view,9.5,q,0',
    'ann,lamp,soon,view,9.5,q,0',
    'ann,lamp,100,stare,9.5,q,0',
    'ann,lamp,100,view,-3,q,0',
    'ann,lamp,100',
    'ann,lamp,101,view,9.5,q2,0',
  ]);
  const { all, bad, rows } = await collect(t, [file], shop);
  assert.equal(rows, 2);
  assert.equal(all.length, 2);
  assert.deepEqual(
    bad.map((b) => [b.file, b.row, b.error.column]),
    [
      [file, 2, 'who'],
      [file, 3, 'when'],
      [file, 4, 'did'],
      [file, 5, 'price'],
      [file, 6, '(row)'],
    ],
  );
  assert.match(bad[3]!.error.message, /price: expected a number of at least 0, got "-3"/);
});

test('what is missing is one clear error', async (t) => {
  const folder = await temporaryFolder(t);
  assert.throws(() => sourceFiles(path.join(folder, 'nope')), /No file or folder .*nope/);
  assert.throws(() => sourceFiles(folder), /holds no files ending in .csv/);
  const file = await writeCsv(folder, 'log.csv', ['who,what,when,price', 'ann,lamp,1,2']);
  await assert.rejects(
    collect(t, [file], shop),
    /log\.csv has no column did, page, place that mapping shop names: its columns are who, what, when, price/,
  );
  const text = await writeCsv(folder, 'log.parquet', ['this is not parquet']);
  await assert.rejects(collect(t, [text], readMapping('trivago')), /log\.parquet cannot be read as Parquet/);
});

test('trivago: lists count as shown before what they explain', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'trivago.parquet');
  const base = { user: 'U', session: 'S' };
  const list = { impressions: '1|2|3', prices: '50|60|70' };
  writeTrivago(file, [
    { ...base, timeS: 1_000, action: 'filter selection', reference: 'Wifi' },
    { ...base, timeS: 1_010, action: 'interaction item image', reference: '9' },
    { ...base, timeS: 1_020, action: 'interaction item image', reference: '2' },
    { ...base, timeS: 1_030, action: 'interaction item info', reference: '3' },
    { ...base, timeS: 1_040, action: 'clickout item', reference: '2', ...list },
    { ...base, timeS: 1_050, action: 'interaction item image', reference: '1' },
    { ...base, timeS: 1_060, action: 'clickout item', reference: '4', impressions: '4|5', prices: '8|9' },
    { ...base, timeS: 1_070, action: 'interaction item deals', reference: 'unknown' },
    // another session of the same user, logged before in time
    {
      ...base,
      session: 'R',
      timeS: 500,
      action: 'clickout item',
      reference: '7',
      impressions: '7',
      prices: '5',
    },
    {
      ...base,
      session: 'R',
      timeS: 510,
      action: 'clickout item',
      reference: '8',
      impressions: '7',
      prices: '5',
    },
  ]);
  const result = await collect(t, [file], readMapping('trivago'));
  const exposures = valuesOf(result.all, 'exposures');
  const shownAt = (itemId: string) => exposures.filter((e) => e.itemId === itemId).map((e) => e.eventTimeMs);
  assert.deepEqual(
    shownAt('2'),
    [1_019_000],
    'one second before the first interaction with an item of the list',
  );
  assert.deepEqual(shownAt('1'), [1_019_000]);
  assert.deepEqual(shownAt('5'), [1_059_000], 'without interaction one second before its clickout');
  assert.equal(exposures.find((e) => e.itemId === '2')!.priceCents, 6_000);

  const byId = new Map(exposures.map((e) => [e.exposureId, e]));
  for (const action of [...valuesOf(result.all, 'clicks'), ...valuesOf(result.all, 'buys')]) {
    if (action.itemId === '9') {
      assert.equal(action.exposureId, null, 'no list shows it');
      continue;
    }
    const exposure = byId.get(action.exposureId!)!;
    assert.equal(exposure.itemId, action.itemId);
    assert.ok(exposure.eventTimeMs < action.eventTimeMs);
  }
  assert.equal(result.withoutList, 1);
  assert.equal(valuesOf(result.all, 'clicks').length, 4);
  assert.deepEqual(
    valuesOf(result.all, 'buys').map((b) => [b.itemId, b.priceCents]),
    [
      ['7', 500],
      ['2', 6_000],
      ['4', 800],
    ],
  );
  assert.deepEqual(result.bad.map((b) => [b.row, b.error.value]).sort(), [
    [10, '8'],
    [8, 'unknown'],
  ]);
  assert.equal(result.itemsSeen.find((i) => i.itemId === '3')!.title, 'hotel 3 Oslo, Norway');
  const times = result.all.map((e) => e.timeMs);
  assert.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  );
});

test('tmall: days are spread in file order, exposures and negatives are made up by seed and flagged', async (t) => {
  const folder = await temporaryFolder(t);
  const rows = Array.from({ length: 40 }, (_, i) => `u${i % 3},b${i % 7},${i % 10 === 9 ? 1 : 0},6-4`);
  const file = await writeCsv(folder, 'tmall.csv', [
    'user_id,brand_id,type,visit_datetime',
    ...rows,
    'u1,b1,2,6-4',
    'u1,b1,3,6-5',
  ]);
  const run = (seed: number) => collect(t, [file], readMapping('tmall'), { seed });
  const result = await run(1);
  const clicks = valuesOf(result.all, 'clicks');
  const buys = valuesOf(result.all, 'buys');
  assert.deepEqual([clicks.length, buys.length], [36, 4]);
  const dayMs = Date.UTC(2014, 5, 4);
  const actions = result.all.filter((e) => e.topic !== 'exposures');
  assert.deepEqual(
    actions.map((e) => e.value.itemId),
    rows.map((_, i) => `b${i % 7}`),
    'file order is time order',
  );
  for (const { timeMs } of actions) assert.ok(timeMs >= dayMs && timeMs < dayMs + 86_400_000);
  assert.equal(new Set(actions.map((e) => e.timeMs)).size, 40);

  const exposures = result.all.filter((e) => e.topic === 'exposures');
  assert.equal(result.syntheticExposures, exposures.length);
  assert.equal(result.syntheticNegatives, exposures.length - 40);
  assert.ok(exposures.every((e) => e.synthetic !== undefined && e.value.requestId.startsWith('synthetic-')));
  const byId = new Map(exposures.map((e) => [e.value.exposureId, e]));
  for (const action of actions) {
    const positive = byId.get(action.value.exposureId!)!;
    assert.equal(positive.synthetic, 'positive');
    assert.equal(positive.value.itemId, action.value.itemId);
    const page = exposures.filter((e) => e.value.requestId === positive.value.requestId);
    const others = page.filter((e) => e.synthetic === 'negative').map((e) => e.value.itemId);
    assert.ok(!others.includes(action.value.itemId) && new Set(others).size === others.length);
  }
  assert.deepEqual((await run(1)).all, result.all);
  assert.notDeepEqual((await run(2)).all, result.all);
});

test('a log larger than the sorter gives the same events through files', async (t) => {
  const folder = await temporaryFolder(t);
  const lines = Array.from({ length: 500 }, (_, i) => `u${i % 9},b${(i * 7) % 31},${i % 2},${1 + (i % 5)}-4`);
  const file = await writeCsv(folder, 'tmall.csv', ['user_id,brand_id,type,visit_datetime', ...lines]);
  const mapping = readMapping('tmall');
  const inMemory = await collect(t, [file], mapping);
  const throughFiles = await collect(t, [file], mapping, { sortLimit: 37 });
  assert.deepEqual(throughFiles.all, inMemory.all);
});
