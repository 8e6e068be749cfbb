import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError } from '@onemall/service-kit';
import { readMapping } from '../src/adapters/mapping-file.ts';
import { mappedColumns, parseMapping } from '../src/mapping.ts';
import { type LogRow, RowError, rowMapper } from '../src/stages/map-row.ts';
import { NOW_MS } from './fixtures.ts';

const basic = {
  name: 'mine',
  user: 'u',
  item: 'i',
  time: { column: 't', unit: 's' },
  kind: { constant: 'click' },
};
const refused = (value: unknown, pattern: RegExp): void =>
  assert.throws(
    () => parseMapping(value, 'mine.json'),
    (error) =>
      error instanceof ConfigError && pattern.test(error.message) && /mine\.json/.test(error.message),
  );
const map = (mapping: object, values: Record<string, unknown>): LogRow =>
  rowMapper(parseMapping({ ...basic, ...mapping }, 'mine.json'), () => NOW_MS)({ values }, 1);
const row = { u: 'ann', i: 'lamp', t: '1700000000' };

test('the ready mappings parse and name their columns', () => {
  assert.ok(mappedColumns(readMapping('trivago')).includes('city'));
  assert.deepEqual(mappedColumns(readMapping('tmall')), ['user_id', 'brand_id', 'visit_datetime', 'type']);
  assert.throws(() => readMapping('nowhere'), /No mapping nowhere.*trivago, tmall/);
});

test('a wrong mapping is refused with the key', () => {
  refused({ ...basic, user: undefined }, /user/);
  refused({ ...basic, usr: 'u' }, /usr/);
  refused({ ...basic, time: { column: 't', unit: 'weeks' } }, /time\.unit/);
  refused({ ...basic, time: { column: 't', unit: 'month-day' } }, /time\.year/);
  refused({ ...basic, itemPattern: '(' }, /regular expression/);
  refused(
    { ...basic, impressions: { column: 'l', separator: ',' }, synthesizeExposures: {} },
    /exclude each other/,
  );
});

test('times of every unit mean the same moment', () => {
  const ms = 1_700_000_000_000;
  for (const [unit, t] of [
    ['s', '1700000000'],
    ['s', 1_700_000_000n],
    ['ms', String(ms)],
    ['us', `${ms}000`],
    ['iso', '2023-11-14T22:13:20Z'],
    ['iso', '2023-11-14 22:13:20'],
    ['iso', '2023-11-14T23:13:20+01:00'],
    ['iso', new Date(ms)],
  ] as const)
    assert.equal(map({ time: { column: 't', unit } }, { ...row, t }).timeMs, ms, `${unit} ${t}`);
  const day = { time: { column: 't', unit: 'month-day', year: 2014 } };
  assert.equal(map(day, { ...row, t: '6-4' }).timeMs, Date.UTC(2014, 5, 4));
});

test('cells that do not hold what the mapping expects are named', () => {
  const bad = (mapping: object, values: Record<string, unknown>, column: string): void =>
    assert.throws(
      () => map(mapping, { ...row, ...values }),
      (error) => error instanceof RowError && error.column === column && error.message.includes('expected'),
    );
  bad({}, { u: '' }, 'u');
  bad({}, { i: null }, 'i');
  bad({ itemPattern: '^[0-9]+$' }, {}, 'i');
  bad({}, { t: 'noon' }, 't');
  bad({}, { t: '-5' }, 't');
  bad({}, { t: String(NOW_MS / 1000 + 1) }, 't');
  bad({ time: { column: 't', unit: 'month-day', year: 2014 } }, { t: '2-30' }, 't');
  bad({ price: { column: 'p', unit: 'major' } }, { p: '-1' }, 'p');
  bad({ price: { column: 'p', unit: 'major' } }, { p: 'NaN' }, 'p');
  bad({ kind: { column: 'k', values: { c: 'click' } } }, { k: 'x' }, 'k');
  bad({ kind: { column: 'k', values: { c: 'click' } } }, { k: 'constructor' }, 'k');
  const lists = { impressions: { column: 'l', separator: '|', prices: { column: 'p', unit: 'minor' } } };
  bad(lists, { l: 'a||b', p: '1|2|3' }, 'l');
  bad(lists, { l: 'a|b', p: '1' }, 'p');
  bad(lists, { l: 'a|b', p: '1|-2' }, 'p');
});

test('prices become minor units, lists their items, texts are filled in', () => {
  const mapped = map(
    {
      price: { column: 'p', unit: 'major' },
      impressions: { column: 'l', separator: '|', prices: { column: 'lp', unit: 'major' } },
      items: { title: '{item} from {shop}', category: '{shop}', tags: ['{none}', 'x'] },
    },
    { ...row, p: '12.34', l: 'a|b', lp: '1|2.5', shop: 'North', none: '' },
  );
  assert.equal(mapped.priceCents, 1234);
  assert.deepEqual(mapped.list, { items: ['a', 'b'], pricesCents: [100, 250] });
  assert.deepEqual(mapped.texts, {
    title: '{item} from North',
    category: 'North',
    tags: ['x'],
    sellerId: 'unknown',
  });
});
