/** RL waits for a ranker whose reward orders what one request shows: AUC over all traffic does not say so. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TrainingSample } from '@onemall/contracts';
import { createLogger, SeededRandom, StageMeter } from '@onemall/service-kit';
import { openRankerLearner } from '../src/adapters/ranker-learner.ts';
import { trainerConfig } from '../src/config.ts';
import { rewardsScenario, surelyAbove } from '../src/stages/order-within-requests.ts';
import { SCENARIOS, sample } from './synthetic.ts';

const PAGE = 4;
const STEPS = 60;

/**
 * Pages of one request. Product cards and videos are clicked by who looks: half of the users click nearly all, the others
 * nearly nothing, and what is on the page makes no difference. Rooms are clicked by their category.
 */
function page(n: number): TrainingSample[] {
  const random = new SeededRandom(n);
  const scenario = SCENARIOS[n % SCENARIOS.length]!;
  const keen = random.next() < 0.5;
  return Array.from({ length: PAGE }, (_, position) => {
    const { exposure, history, item, ...rest } = sample(n * PAGE + position);
    const category = `cat${random.int(5)}`;
    const liked = scenario === 'live_stream' ? category < 'cat2' : keen;
    const clicked = random.next() < (liked ? 0.9 : 0.1);
    const bought = clicked && random.next() < 0.5;
    const ofUser = Array.from({ length: keen ? 8 : 0 }, (_, k) => ({
      itemId: `seen-${k}`,
      category: 'other',
      eventTimeMs: exposure.requestTimeMs - 1_000,
    }));
    return {
      ...rest,
      exposure: { ...exposure, scenario, requestId: `page-${n}`, position },
      history: { ...history, clicks: ofUser },
      item: { ...item!, category, tags: [], priceCents: 500, sellerId: 'one', sellingItemIds: [] },
      ...{ clicked, bought, buyValueCents: bought ? 1_000 : 0, clickDelayMs: clicked ? 20 : null },
    };
  });
}

test('a scenario whose order within a request is chance gets no rewards, however good the AUC; without one no ranker is published', async (t) => {
  const meter = new StageMeter('trainer');
  const learnerAt = async (least: string) => {
    const learner = await openRankerLearner(
      trainerConfig({
        ...{ ONEMALL_MODEL: 'ranker', ONEMALL_RANKER_PRESET: 'tiny', ONEMALL_RANKER_BATCH_SIZE: '48' },
        ...{ ONEMALL_EGPM_MIN_EXPOSURES: '300', ONEMALL_EGPM_MIN_BUYS: '5', ONEMALL_WARMUP_STEPS: '5' },
        ONEMALL_RANKER_MIN_RANK_CORRELATION: least,
      }),
      SCENARIOS,
      meter,
      createLogger('trainer', 'silent'),
    );
    t.after(() => learner.close());
    return learner;
  };
  const learner = await learnerAt('0.1');
  assert.match(learner.publishable()!, /no scenario has its EGPM scale yet/);
  for (let step = 0; step < STEPS; step++)
    await learner.step(
      learner.encode(Array.from({ length: 12 }, (_, i) => page(step * 12 + i)).flat())!,
      [],
      0,
    );
  const of = (scenario: string) => learner.figures().find((row) => row.scenario === scenario)!.values;
  assert.ok(of('product_card').auc_click! > 0.7, `AUC of cards ${of('product_card').auc_click}`);
  assert.ok(of('product_card').rank_correlation_low! < 0.1);
  assert.ok(of('live_stream').rank_correlation_low! > 0.1, JSON.stringify(of('live_stream')));

  // every buy pays 1,000: the third output soon says so
  for (const scenario of [...SCENARIOS, '']) {
    const { calibration_value: value, calibration_egpm: egpm } = of(scenario);
    assert.ok(value! > 0.1 && value! < 2, `${scenario}: value ${value}`);
    assert.ok(egpm! > 0.1 && egpm! < 5, `${scenario}: EGPM ${egpm}`);
  }

  assert.equal(learner.publishable(), null, 'rooms are ordered');
  const manifest = JSON.parse(
    new TextDecoder().decode((await learner.exportFiles('1-ranker')).get('ranker.json')),
  );
  assert.deepEqual(Object.keys(manifest.egpmScale), ['live_stream']);

  const [strict, open] = [await learnerAt('0.95'), await learnerAt('-1')];
  const state = await learner.save();
  for (const other of [strict, open]) await other.restore(state);
  assert.match(
    strict.publishable()!,
    /does not order what a request shows: .*live_stream 0\.\d+ \+- 0\.\d+ \(\d+ requests\).* rankerMinRankCorrelation 0\.95/,
  );
  assert.equal(meter.status('').values.ranker_too_weak, 1);
  assert.equal(open.publishable(), null);
  assert.equal(meter.status('').values.ranker_too_weak, 0);
});

test('the order must be sure: the lower end of its interval counts, and few requests have none', () => {
  const order = { mean: 0.2, error: 0.05, requests: 100 };
  assert.ok(Math.abs(surelyAbove(order)! - 0.102) < 1e-12);
  assert.ok(rewardsScenario(order, 0.1));
  assert.ok(!rewardsScenario({ ...order, error: 0.06 }, 0.1));
  assert.ok(!rewardsScenario({ ...order, requests: 29 }, 0.1));
  assert.ok(!rewardsScenario(null, 0));
  assert.ok(rewardsScenario(null, -1), 'nothing is asked');
});
