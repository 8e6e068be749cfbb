/** The real logs, where they are: ONEMALL_DATA, else shared/data beside the checkout. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readMapping } from '../src/adapters/mapping-file.ts';
import { collect, valuesOf } from './fixtures.ts';

const DATA = process.env.ONEMALL_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url));
const trivago = path.join(DATA, 'trivago', 'trivago_val_100k.parquet');
const tmall = path.join(DATA, 'tmall', 't_alibaba_data.csv');
const needs = (file: string): { skip?: string } =>
  existsSync(file) ? {} : { skip: `no ${file}: set ONEMALL_DATA to the folder of the real logs` };

test(
  'trivago: counts as its description says, four ids that are no hotels, one clickout off its list',
  needs(trivago),
  async (t) => {
    const { all, bad } = await collect(t, [trivago], readMapping('trivago'));
    assert.equal(valuesOf(all, 'exposures').length, 312_539);
    assert.equal(valuesOf(all, 'clicks').length, 72_971 - 4);
    assert.equal(valuesOf(all, 'buys').length, 13_597 - 1);
    assert.equal(bad.filter((b) => b.error.value === 'unknown').length, 4);
    assert.equal(bad.length, 5);
  },
);

test('tmall: every click and buy has its synthetic exposure, through files', needs(tmall), async (t) => {
  const result = await collect(t, [tmall], readMapping('tmall'), { sortLimit: 300_000 });
  const counts = { exposures: 0, clicks: 0, buys: 0 };
  for (const event of result.all) counts[event.topic]++;
  assert.deepEqual(result.bad, []);
  assert.equal(result.rows, 182_880);
  assert.equal(counts.clicks, 174_539);
  assert.equal(counts.buys, 6_984);
  assert.equal(result.syntheticExposures - result.syntheticNegatives, counts.clicks + counts.buys);
});
