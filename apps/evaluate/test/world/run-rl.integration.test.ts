/** The offline RL loop on a small world, in a file of its own: it trains six models. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RunStore } from '../../src/world/adapters/run-store.ts';
import { runRl } from '../../src/world/rl-study.ts';
import { run } from './small-run.ts';

test('rl: the arms go on from one policy, are judged on the same requests, and a second start repeats nothing', async () => {
  const rl = {
    ...run('rl', { requests: 25, positives: 300 }),
    rlSteps: 6,
    rolloutWidth: 24,
    rankerSamples: 600,
    rankerPreset: 'tiny' as const,
    syncSteps: 3,
  };
  const report = await runRl(rl);
  for (const arm of ['base', 'dpo', 'grpo'])
    for (const top of [10, 100, 500])
      assert.match(report, new RegExp(`\\| ${top} \\| ${arm} \\| 0\\.\\d{4} `));
  const store = new RunStore(rl.folder, `plan ${rl.plan.hash}`);
  for (const arm of ['dpo', 'grpo']) {
    const sums = store.value<{ groups: number; firstLogRatio: number }>(`rl-${arm}/policy`)!;
    assert.ok(sums.groups >= 3, `${arm}: ${JSON.stringify(sums)}`);
    assert.ok(sums.firstLogRatio < 1e-3, `rollout and trainer agree at lag 0: ${sums.firstLogRatio}`);
  }
  const said: string[] = [];
  assert.equal(await runRl({ ...rl, print: (line) => said.push(line) }), report);
  assert.ok(!said.some((line) => /step/.test(line)), 'nothing is trained again');
});
