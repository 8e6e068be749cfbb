/** The retrieval model as the trainer runs it: what the configuration makes of its loss, and its sliding figures. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createLogger, StageMeter } from '@onemall/service-kit';
import { openRetrieverLearner } from '../src/adapters/retriever-learner.ts';
import type { SidTables } from '../src/adapters/sid-tables.ts';
import { trainerConfig } from '../src/config.ts';
import { ExistingSids } from '../src/state/existing-sids.ts';
import { CODEBOOK_VERSION, NUM_CODES, rewardGroup, SCENARIOS, sample, sidOf } from './synthetic.ts';

const numCodes = Object.fromEntries(SCENARIOS.map((s) => [s, NUM_CODES]));
const codebooks = {
  codebookVersions: Object.fromEntries(SCENARIOS.map((s) => [s, CODEBOOK_VERSION])),
  numCodes,
};
const existing = new ExistingSids(
  SCENARIOS.flatMap((s) => Array.from({ length: 60 }, (_, i) => sidOf(s, i))),
  numCodes,
);
const tables = {
  sidOf: (itemId: string) => {
    const at = itemId.lastIndexOf('-');
    return sidOf(itemId.slice(0, at), Number(itemId.slice(at + 1)));
  },
  existing: () => existing,
} as unknown as SidTables;

async function learnerWith(t: TestContext, env: Record<string, string>) {
  const learner = await openRetrieverLearner(
    trainerConfig({ ONEMALL_TRAINER_PRESET: 'tiny', ONEMALL_WARMUP_STEPS: '0', ...env }),
    SCENARIOS,
    codebooks,
    tables,
    new StageMeter('trainer'),
    createLogger('trainer', 'silent'),
  );
  t.after(() => learner.close());
  let step = 0;
  return {
    /** Trains the next batch with these groups beside it. @returns the sliding figures of all scenarios after it */
    async train(groups: readonly number[]): Promise<Record<string, number>> {
      const samples = Array.from({ length: 16 }, (_, i) => sample(16 * step + i));
      step++;
      await learner.step(
        learner.encode(samples)!,
        groups.map((n) => rewardGroup(n)),
        1,
      );
      return learner.figures()[0]!.values;
    },
  };
}

test('L_RL is divided by the share of requests that become rollouts', async (t) => {
  const lossAt = async (share: string): Promise<number> =>
    (await (await learnerWith(t, { ONEMALL_ROLLOUT_SHARE: share })).train([1])).rl_loss!;
  const [few, many] = [await lossAt('0.02'), await lossAt('0.1')];
  assert.ok(Math.abs(few) > 0.1, `${few}`);
  assert.ok(Math.abs(5 * many - few) < 1e-5 * Math.abs(few), `${few} with 2 %, ${many} with 10 %`);
});

test('figures of reward groups are those of the whole window, also where the newest step has none', async (t) => {
  const learner = await learnerWith(t, { ONEMALL_METRICS_WINDOW_STEPS: '3' });
  // the same steps, each seen by itself
  const single = await learnerWith(t, { ONEMALL_METRICS_WINDOW_STEPS: '1' });
  const [first, second] = [await single.train([1]), await single.train([2, 3])];
  assert.deepEqual([first.rl_window_candidates, second.rl_window_candidates], [16, 32]);
  await learner.train([1]);
  await learner.train([2, 3]);
  const figures = await learner.train([]);
  assert.equal(figures.rl_window_candidates, 48);
  const close = (name: string, expected: number) =>
    assert.ok(Math.abs(figures[name]! - expected) < 1e-9, `${name} is ${figures[name]}, not ${expected}`);
  const mean = (of: (step: Record<string, number>) => number) => (of(first) + 2 * of(second)) / 3;
  for (const name of ['rl_loss', 'rl_kl', 'rl_clip_share', 'rl_mean_ratio', 'rl_advantage_mean'])
    close(
      name,
      mean((step) => step[name]!),
    );
  for (const name of ['rl_advantage_max_abs', 'rl_max_abs_log_ratio'])
    close(name, Math.max(first[name]!, second[name]!));
  const square = mean((step) => step.rl_advantage_std! ** 2 + step.rl_advantage_mean! ** 2);
  close('rl_advantage_std', Math.sqrt(square - figures.rl_advantage_mean! ** 2));
  assert.notEqual(first.rl_kl, second.rl_kl);

  await learner.train([]);
  assert.equal((await learner.train([])).rl_window_candidates, undefined, 'none in three steps');
});
