/** Tables as they stand in docs/results-world.md. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RequestHits } from '../../src/world/judging/hit-rates.ts';
import { againstTable, differenceTable, hitTable, titleOf } from '../../src/world/reports/hit-table.ts';

const MODELS = ['onemall-small', 'onemall-small-dense', 'sasrec'];
const of = (request: number, scenario: string, clicked: boolean): RequestHits => {
  const lists = {
    random: [0.1, 0.2, 1],
    popularity: [0.2, 0.3, 1],
    'onemall-small': [0.4, 0.5, 1],
    'onemall-small-dense': [0.4001, 0.6, 1],
    sasrec: [0.3, 0.7, 0.9],
    oracle: [0.8, 0.9, 1],
  };
  return { request, scenario, viewed: lists, clicked: clicked ? lists : {} };
};
const hits = [of(1, 'live_stream', true), of(2, 'live_stream', true), of(3, 'product_card', true)];

test('the name of a list says what it is', () => {
  assert.deepEqual(
    [...MODELS, 'onemall-medium-events', 'onemall-tiny-clicks-dense', 'tiger-popular', 'grpo'].map(titleOf),
    [
      'OneMall, beam',
      'OneMall, dense head + log popularity',
      'SASRec',
      'OneMall without Query-Former, beam',
      'OneMall, clicks alone, dense head + log popularity',
      "TIGER's form + log popularity",
      'grpo',
    ],
  );
});

test('a row has its scenario with the requests; where a list holds all candidates it says so', () => {
  const [title, , header, , first, ...rows] = hitTable([...hits, of(4, 'live_stream', false)], MODELS);
  assert.equal(title, 'HR of the viewed items, % (95 % interval)');
  assert.equal(header, '| scenario (requests) | list | HR@50 | HR@100 | HR@500 |');
  assert.equal(first, '| product_card (1) | random | 10.0 (10.0 to 10.0) | 20.0 (20.0 to 20.0) | all |');
  assert.ok(rows.includes('| live_stream (3) | oracle | 80.0 (80.0 to 80.0) | 90.0 (90.0 to 90.0) | all |'));
  assert.ok(
    rows.includes(
      '| live_stream (2) | SASRec | 30.0 (30.0 to 30.0) | 70.0 (70.0 to 70.0) | 90.0 (90.0 to 90.0) |',
    ),
  );
});

test('the first list stands against each other one, viewed and clicked; a difference that rounds to nothing has no sign', () => {
  const [twenty, nothing, ten] = ['20.0 (20.0 to 20.0)', '0.0 (0.0 to 0.0)', '10.0 (10.0 to 10.0)'];
  assert.deepEqual(againstTable(hits, MODELS), [
    'Paired differences in HR@50, % (95 % interval): OneMall, beam against each',
    '',
    '| against | product_card viewed; clicked | live_stream viewed; clicked |',
    '|---|---|---|',
    `| popularity | ${twenty}; ${twenty} | ${twenty}; ${twenty} |`,
    `| OneMall, dense head + log popularity | ${nothing}; ${nothing} | ${nothing}; ${nothing} |`,
    `| SASRec | ${ten}; ${ten} | ${ten}; ${ten} |`,
  ]);
  // all pairs at each K beside it
  const pair = '| product_card | SASRec - OneMall, beam | -10.0 (-10.0 to -10.0) | 20.0 (20.0 to 20.0) |';
  assert.equal(differenceTable(hits, MODELS).filter((row) => row.startsWith(pair)).length, 2);
});
