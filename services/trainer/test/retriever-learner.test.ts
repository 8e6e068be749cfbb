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
