import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accuracyTable } from '../../src/world/reports/accuracy-table.ts';
import { addFigures, emptyPass, type PassFigures } from '../../src/world/training/pass-figures.ts';

const step = (
  samples: number,
  hits: number,
  loss: number,
  maskedSamples = samples,
): PassFigures['all'][string] => ({
  samples,
  hits: [hits, hits - 1, hits - 2],
  maskedSamples,
  maskedHits: [hits + 1, hits, hits - 1],
  outsideTrie: hits,
  ntp: [loss, loss / 2, loss / 4],
});

test('a pass is the sum of its steps by scenario, its loss the mean over their samples', () => {
  const pass: PassFigures['all'] = {};
  const first = { product_card: step(10, 3, 4), short_video: step(6, 2, 8) };
  addFigures(pass, first);
  addFigures(pass, { product_card: step(30, 6, 8, 20) });
  assert.deepEqual(pass, {
    product_card: {
      ...{ samples: 40, hits: [9, 7, 5], ntp: [7, 3.5, 1.75] },
      ...{ maskedSamples: 30, maskedHits: [11, 9, 7], outsideTrie: 9 },
    },
    short_video: step(6, 2, 8),
  });
  // what a step reported stays as it was
  assert.deepEqual(first, { product_card: step(10, 3, 4), short_video: step(6, 2, 8) });
});

test('the table gives shares by scenario and model, and passes over a model without figures', () => {
  const all = { product_card: step(40, 10, 4, 20), live_stream: step(8, 4, 1, 0) };
  const pass = { all, end: { product_card: step(4, 2, 2) } };
  const rows = accuracyTable([
    { name: 'a', pass },
    { name: 'b', pass: emptyPass() },
  ]).filter((line) => /\| [ab] \|/.test(line));
  assert.deepEqual(rows, [
    '| product_card | a | 40 | 10 | 25.0 | 22.5 | 20.0 | 55.0 | 50.0 | 45.0 | 7.000 | 3.500 |',
    '| live_stream | a | 8 | 4 | 50.0 | 37.5 | 25.0 |  |  |  | 1.750 |  |',
  ]);
});
