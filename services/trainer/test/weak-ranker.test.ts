/** A ranker that orders clicks worse than the limit gives no rewards: it stays unpublished, with the reason. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger, StageMeter } from '@onemall/service-kit';
import { openRankerLearner } from '../src/adapters/ranker-learner.ts';
import { trainerConfig } from '../src/config.ts';
import { SCENARIOS, sample } from './synthetic.ts';

/** Clicks fall by chance, so that the AUC stays near one half. */
const shown = (n: number) => {
  const clicked = (n * 2_654_435_761) % 97 < 30;
  const bought = clicked && n % 3 === 0;
  return sample(n, {
    ...{ clicked, bought, buyValueCents: bought ? 1_000 : 0, clickDelayMs: clicked ? 20 : null },
  });
};

test('below rankerMinAuc a ranker is not published', async () => {
  const learnerAt = (least: string) =>
    openRankerLearner(
      trainerConfig({
        ...{ ONEMALL_MODEL: 'ranker', ONEMALL_RANKER_PRESET: 'tiny', ONEMALL_RANKER_MIN_AUC: least },
        ...{ ONEMALL_EGPM_MIN_EXPOSURES: '50', ONEMALL_EGPM_MIN_BUYS: '5' },
      }),
      SCENARIOS,
      new StageMeter('trainer'),
      createLogger('trainer', 'silent'),
    );
  const [strict, open] = [await learnerAt('0.95'), await learnerAt('0')];
  for (const learner of [strict, open]) {
    assert.match(learner.publishable()!, /no scenario has its EGPM scale yet/);
    for (let step = 0; step < 12; step++) {
      const samples = Array.from({ length: 32 }, (_, i) => shown(step * 32 + i));
      await learner.step(learner.encode(samples)!, [], 0);
    }
  }
  const { auc_click } = strict.figures()[0]!.values;
  assert.ok(auc_click! > 0 && auc_click! < 0.95, `AUC ${auc_click}`);
  assert.match(
    strict.publishable()!,
    new RegExp(`AUC for clicks is ${auc_click!.toFixed(3)}, below rankerMinAuc 0.95`),
  );
  assert.equal(open.publishable(), null);
  await Promise.all([strict.close(), open.close()]);
});
