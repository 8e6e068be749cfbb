import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FEATURE_VERSION, NUM_DENSE, NUM_IDS } from '@onemall/features';
import {
  auc,
  BatchError,
  createRankerTrainer,
  loadRanker,
  type Prediction,
  PublishedModelError,
  type RankerSample,
  StateError,
} from '../src/index.ts';
import { rankerPass } from '../src/models/ranker.ts';
import { PredictionWindow } from '../src/prediction-window.ts';
import { rankerFeeds } from '../src/ranker-trainer.ts';
import { checkGradients } from './gradients.ts';
import { SCENARIOS, randomRankerSamples as samples } from './ranker-samples.ts';
import { randomSource } from './synthetic.ts';

const create = () =>
  createRankerTrainer({ preset: 'tiny', scenarios: SCENARIOS, seed: 4, optimizer: { warmupSteps: 10 } });

test('gradients of the ranker agree with finite differences of the float64 reference', async () => {
  const preset = { name: 'micro', idDim: 2, idRows: 70, hidden: [5, 4], batchSize: 6, learningRate: 1 };
  const random = randomSource(2);
  const batch = samples(random, 5);
  batch[0] = { ...batch[0]!, bought: true, buyValueCents: 1234 };
  await checkGradients((ops) => rankerPass(ops, preset, 6).loss, {
    feeds: rankerFeeds(batch, 6, SCENARIOS),
    perParameter: 6,
  });
});

test('the ranker learns clicks, buys and values, resumes bit for bit, and scores the same when published', async () => {
  const trainer = await create();
  const random = randomSource(3);
  for (let i = 0; i < 250; i++) await trainer.step(samples(random, 32));
  const metrics = trainer.metrics();
  for (const scenario of SCENARIOS) {
    assert.ok(metrics[`${scenario}.aucClick`]! > 0.75, `click ${metrics[`${scenario}.aucClick`]}`);
    assert.ok(metrics[`${scenario}.aucBuy`]! > 0.6, `buy ${metrics[`${scenario}.aucBuy`]}`);
    assert.ok(Math.abs(metrics[`${scenario}.calibrationClick`]! - 1) < 0.15);
  }

  const resumed = await create();
  await resumed.restore(structuredClone(await trainer.state()));
  const next = samples(random, 20);
  const { stepMs: _a, ...went } = await trainer.step(next);
  const { stepMs: _b, ...again } = await resumed.step(next);
  assert.deepEqual(again, went);
  assert.deepEqual(await resumed.state(), await trainer.state());

  const files = await trainer.exportRanker({ rankerVersion: '251-x', egpmScale: { product_card: 12 } });
  const ranker = await loadRanker(files);
  assert.equal(ranker.manifest.egpmScale.product_card, 12);
  assert.equal(ranker.manifest.featureVersion, FEATURE_VERSION);
  // 100 candidates take two static batches; the trainer's own predictions of the same rows are those of its next step
  const rows = samples(random, 100);
  const dense = new Float32Array(100 * NUM_DENSE);
  const ids = new Int32Array(100 * NUM_IDS);
  rows.forEach((row, i) => {
    dense.set(row.dense, i * NUM_DENSE);
    ids.set(row.ids, i * NUM_IDS);
  });
  const scores = await ranker.score(dense, ids, 100);
  const own = await trainer.step(rows.slice(0, 32));
  for (let i = 0; i < 32; i++) {
    assert.ok(Math.abs(scores.pCtr[i]! - own.pCtr[i]!) < 1e-5);
    assert.ok(Math.abs(scores.pCtcvr[i]! - own.pCtcvr[i]!) < 1e-5);
    assert.ok(Math.abs(scores.buyValueCents[i]! / own.buyValueCents[i]! - 1) < 1e-4);
  }
  const high = rows.map((row, i) => ({ value: scores.buyValueCents[i]!, dear: row.ids[0]! % 2 === 1 }));
  assert.ok(
    auc(
      high.map((h) => h.value),
      high.map((h) => h.dear),
    ) > 0.7,
    'dear items get higher values',
  );
  // 400 take the wide graph once, then the narrow one, whose last batch is not full; of 500 the last 244 take the wide one too
  for (const times of [4, 5]) {
    const more = await ranker.score(repeated(dense, times), repeated(ids, times), times * 100);
    for (const name of ['pCtr', 'pCtcvr', 'buyValueCents'] as const)
      for (let i = 0; i < times * 100; i++)
        assert.ok(Math.abs(more[name][i]! / scores[name][i % 100]! - 1) < 1e-4, `${name} of row ${i}`);
  }
  await assert.rejects(ranker.score(dense, ids, 99), /99 candidates takes/);
  await Promise.all([ranker.close(), trainer.close(), resumed.close()]);

  const foreign = new Map(files);
  const manifest = { ...JSON.parse(new TextDecoder().decode(files.get('ranker.json'))), featureVersion: 999 };
  foreign.set('ranker.json', Buffer.from(JSON.stringify(manifest)));
  await assert.rejects(
    loadRanker(foreign),
    (e: unknown) => e instanceof PublishedModelError && /features of version 999/.test(e.message),
  );
  const half = new Map(files);
  half.delete('ranker-wide.onnx');
  await assert.rejects(
    loadRanker(half),
    (e: unknown) => e instanceof PublishedModelError && /has no ranker-wide.onnx/.test(e.message),
  );
});

function repeated<A extends Float32Array | Int32Array>(values: A, times: number): A {
  const all = (
    values instanceof Float32Array
      ? new Float32Array(times * values.length)
      : new Int32Array(times * values.length)
  ) as A;
  for (let i = 0; i < times; i++) all.set(values, i * values.length);
  return all;
}

test('what does not fit the ranker is refused by name', async () => {
  const trainer = await create();
  const [row] = samples(randomSource(5), 1) as [RankerSample];
  const bad = (pattern: RegExp) => (e: unknown) => e instanceof BatchError && pattern.test(e.message);
  await assert.rejects(trainer.step([]), bad(/1 to 32 samples, got 0/));
  await assert.rejects(trainer.step([{ ...row, scenario: 'x' }]), bad(/Unknown scenario x/));
  await assert.rejects(trainer.step([{ ...row, dense: new Float32Array(3) }]), bad(/got 3 and/));
  await assert.rejects(trainer.step([{ ...row, bought: true, buyValueCents: -1 }]), bad(/got -1/));
  const state = await trainer.state();
  const older = { ...state, scalars: { ...state.scalars, featureVersion: 0 } };
  await assert.rejects(trainer.restore(older), (e: unknown) => e instanceof StateError);
  await trainer.close();
});

const VALUES = { buyValueCents: 100, paidCents: 0, request: null };

test('AUC counts ordered pairs, ties half; calibration is mean prediction over mean label', () => {
  const predictions = [0.1, 0.4, 0.4, 0.8, 0.2];
  const labels = [false, true, false, true, false];
  let pairs = 0;
  for (const [i, p] of predictions.entries())
    for (const [j, q] of predictions.entries())
      if (labels[i] && !labels[j]) pairs += p > q ? 1 : p === q ? 0.5 : 0;
  assert.equal(auc(predictions, labels), pairs / 6);
  const window = new PredictionWindow(3);
  for (const [i, click] of predictions.entries())
    window.add('s', { click, buy: 0.5, clicked: labels[i]!, bought: false, ...VALUES });
  // the window keeps the latest three: 0.4 (no), 0.8 (yes), 0.2 (no)
  const metrics = window.metrics();
  assert.equal(metrics['s.samples'], 3);
  assert.equal(metrics['s.aucClick'], 1);
  assert.ok(Math.abs(metrics['s.calibrationClick']! - 1.4) < 1e-12);
  assert.equal(metrics['s.calibrationBuy'], undefined);
  // top tenth is the row with pCtr 0.8: 0.5 x 100 / (1.25 x 0.8)
  assert.ok(Math.abs(window.egpmScale().s! - 50) < 1e-9);
});

test('calibration of the value over what was bought, of EGPM over all that was shown, by scenario', () => {
  const window = new PredictionWindow(10);
  const add = (scenario: string, buy: number, buyValueCents: number, paidCents: number) =>
    window.add(scenario, {
      click: 0.5,
      buy,
      buyValueCents,
      paidCents,
      clicked: true,
      bought: paidCents > 0,
      request: null,
    });
  add('a', 0.5, 300, 200);
  add('a', 0.25, 100, 600);
  add('a', 0.1, 4_000, 0);
  add('b', 0.2, 50, 100);
  add('c', 0.9, 700, 0);
  const metrics = window.metrics();
  const close = (name: string, expected: number) =>
    assert.ok(Math.abs(metrics[name]! - expected) < 1e-12, `${name} ${metrics[name]}`);
  close('a.calibrationValue', (300 + 100) / 800);
  close('a.calibrationEgpm', (150 + 25 + 400) / 800);
  close('b.calibrationValue', 0.5);
  close('b.calibrationEgpm', 0.1);
  assert.equal(metrics['c.calibrationValue'], undefined);
  assert.equal(metrics['c.calibrationEgpm'], undefined);
});

test('order within requests: the mean of their rank correlations, whatever differs between requests', () => {
  const window = new PredictionWindow(20);
  const rewardOf = ({ pCtr, pCtcvr, buyValueCents }: Prediction) =>
    pCtr + 30 * pCtcvr + pCtcvr * buyValueCents;
  const add = (request: number | null, click: number, buy: number, clicked: boolean, paidCents: number) =>
    window.add('s', { click, buy, clicked, bought: paidCents > 0, buyValueCents: 10, paidCents, request });
  // in order by the reward, though not by pCtr: what was bought comes first
  add(1, 0.9, 0.0, true, 0);
  add(1, 0.5, 0.1, true, 700);
  add(1, 0.1, 0.0, false, 0);
  // the wrong way round, with higher predictions than all of the request before
  add(2, 0.95, 0.5, false, 0);
  add(2, 0.99, 0.2, false, 0);
  add(2, 0.92, 0.1, true, 0);
  assert.equal(window.requestOrder('other', rewardOf), null);
  const expected = -Math.sqrt(3) / 2; // places 3, 2, 1 against 1.5, 1.5, 3
  const two = window.requestOrder('s', rewardOf)!;
  assert.ok(Math.abs(two.mean - (1 + expected) / 2) < 1e-12, `${two.mean}`);
  assert.ok(Math.abs(two.error - (1 - expected) / 2) < 1e-12, `${two.error}`);
  // these say nothing: no outcome, a single exposure, a request that is not known
  add(3, 0.1, 0.1, false, 0);
  add(3, 0.2, 0.1, false, 0);
  add(4, 0.1, 0.1, true, 0);
  add(null, 0.1, 0.1, true, 0);
  add(null, 0.2, 0.1, false, 0);
  assert.deepEqual(window.requestOrder('s', rewardOf), two);
  assert.equal(two.requests, 2);
});

test('figures go on after a restore: the window keeps its rows and their order', () => {
  const random = randomSource(8);
  const rows = Array.from({ length: 9 }, () => ({
    click: Math.fround(random.next()),
    buy: Math.fround(random.next()),
    clicked: random.next() < 0.5,
    bought: random.next() < 0.5,
    buyValueCents: random.int(1_000),
    paidCents: random.int(1_000),
    request: [null, 0, 0xffffff][random.int(3)]!,
  }));
  const [window, resumed] = [new PredictionWindow(5), new PredictionWindow(5)];
  for (const row of rows.slice(0, 7)) window.add('a', row);
  window.add('b', rows[0]!);
  resumed.add('c', rows[1]!);
  resumed.restore(window.saved());
  assert.deepEqual(resumed.metrics(), window.metrics());
  for (const row of rows.slice(7)) for (const each of [window, resumed]) each.add('a', row);
  assert.deepEqual(resumed.saved(), window.saved());
  assert.equal(window.saved().get('a')!.length, 35);
});
