/** The offline RL loop on a small world, in a file of its own: it trains six models. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { readPolicyManifest } from '@onemall/learning';
import { runRl } from '../../src/world/run-rl.ts';
import { openStore } from '../../src/world/samples/prepare-world.ts';
import { run } from './small-run.ts';

test('rl: the arms go on from one policy, are judged on the same requests, and a second start repeats nothing', async () => {
  const rl = (seed: number) => ({
    ...run(`rl-${seed}`, { requests: 25, positives: 300, seed }),
    rlSteps: 6,
    rolloutWidth: 24,
    rankerSamples: 600,
    rankerPreset: 'tiny' as const,
    syncSteps: 3,
    groupsPerStep: 2,
    groupCandidates: 12,
    rlWeight: 0.5,
  });
  const one = await runRl([rl(1)]);
  for (const arm of ['base', 'dpo', 'grpo'])
    for (const top of [10, 100, 500]) assert.match(one, new RegExp(`\\| ${top} \\| ${arm} \\| 0\\.\\d{4} `));
  assert.match(one, /\| 10 \| grpo - dpo \| -?0\.\d{4} \|/);
  for (const scenario of ['live_stream', 'product_card', 'short_video'])
    assert.match(one, new RegExp(`\\| ${scenario} \\| -?\\d\\.\\d\\d \\(`));
  const hits = (list: string) => Number(new RegExp(`\\| ${list} \\| (\\d+\\.\\d\\d) \\|`).exec(one)![1]);
  assert.ok(hits('random') < hits('popularity') && hits('popularity') < hits('oracle'), one);
  const store = openStore(rl(1));
  const { trieVersion } = readPolicyManifest((await store.files('rl-grpo/policy'))!);
  assert.match(one, new RegExp(`Trained among the children in trie ${trieVersion}\\.`));
  for (const arm of ['dpo', 'grpo']) {
    const sums = store.value<{ groups: number; firstLogRatio: number }>(`rl-${arm}/policy`)!;
    assert.ok(sums.groups >= 6, `${arm}: ${JSON.stringify(sums)}`);
    assert.ok(sums.firstLogRatio < 1e-3, `rollout and trainer agree at lag 0: ${sums.firstLogRatio}`);
  }
  const said: string[] = [];
  const printing = (seed: number) => ({ ...rl(seed), print: (line: string) => said.push(line) });
  assert.equal(await runRl([printing(1)]), one);
  assert.deepEqual(said, [], 'nothing is simulated, trained or judged again');

  await assert.rejects(
    runRl([{ ...rl(1), groupsPerStep: 1 }]),
    /holds arms of .*"groupsPerStep":2.* name another folder/,
  );

  await assert.rejects(runRl([{ ...rl(1), seed: 2 }]), /holds arms of .*"seed":1.* asked are .*"seed":2/);

  // a stop while the last requests were judged: the others are not asked again
  const file = path.join(store.folder, 'judged.jsonl');
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  assert.ok(lines.length > 10);
  writeFileSync(file, `${lines.slice(0, -2).join('\n')}\n{"request":`);
  store.setValue('judged', null);
  assert.equal(await runRl([rl(1)]), one);
  assert.deepEqual(readFileSync(file, 'utf8').trimEnd().split('\n'), lines);

  const two = await runRl([printing(1), printing(2)]);
  assert.match(two, /seed 1, 2;/);
  assert.match(two, /\| 10 \| grpo - base \| .* %, [+-]\d/);
  assert.ok(
    said.some((line) => /step/.test(line)),
    'the second seed trains its own',
  );
});
