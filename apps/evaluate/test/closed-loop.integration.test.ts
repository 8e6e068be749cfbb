/** Two policies of a small RL run against each other: broker, registry, database, retrievers and simulator are real processes. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { startTestStack } from '@onemall/testkit';
import { type ArmRow, armReport } from '../src/closed-loop/arm-report.ts';
import { type ClosedLoop, runClosedLoop } from '../src/closed-loop/run-loop.ts';
import { runRl } from '../src/world/run-rl.ts';
import { folder, run } from './world/small-run.ts';

const row = (arm: string, ctr: number, against: number[]): ArmRow => ({
  arm,
  requests: 10,
  ctr,
  orders_per_request: 0.5,
  gmv_per_request: 20,
  against_base_low_high: { ctr: against, orders: against, gmv: against },
});

test('the report gives each arm its measures, and its differences to base with intervals', () => {
  const facts = { plan: { hash: 'abc', seed: 1 }, warmUp: 5, beam: 8, shown: 20, lost: 1, closed: 19 };
  const report = armReport(facts, [
    row('base', 0.2, []),
    row('grpo', 0.21, [0.01, -0.02, 0.04]),
    row('logging', 0.1, [-0.1, -0.12, -0.08]),
  ]);
  assert.match(report, /20 of the arms at beam 8 \(19 closed, 1 without an answer\)/);
  assert.match(report, /\| base \| 10 \| 0\.2000 \| {2}\| 0\.5000 \| {2}\|/);
  assert.match(report, /\| grpo \| 10 \| 0\.2100 \| 0\.0100 \(-0\.0200 to 0\.0400\), \+5\.00 % \| 0\.5000/);
  assert.match(report, /\| logging \| 10 \| 0\.1000 \| {2}\|/);
});

test('closed loop: both policies answer their share, and the A/B report has every request of theirs', async () => {
  const rl = {
    ...run('closed-loop', { requests: 10, positives: 200 }),
    rlSteps: 4,
    rolloutWidth: 24,
    rankerSamples: 600,
    rankerPreset: 'tiny' as const,
    syncSteps: 4,
    groupsPerStep: 1,
    groupCandidates: 16,
    rlWeight: 0.5,
  };
  await runRl([rl]);
  const stack = await startTestStack();
  const said: string[] = [];
  const loop: ClosedLoop = {
    plan: rl.plan,
    runFolder: rl.folder,
    out: path.join(folder, `loop-${stack.newNamespace()}`),
    arms: ['base', 'grpo'],
    requests: 60,
    share: 0.5,
    warmUp: 60,
    beam: 16,
    stack,
    print: (line) => said.push(line),
  };
  try {
    const report = await runClosedLoop(loop);
    const [, shown, closed, lost] = /then (\d+) of the arms .* \((\d+) closed, (\d+) without/.exec(report)!;
    assert.equal(Number(shown) + Number(lost), 60, 'every request of the span was asked of an arm');
    assert.ok(Number(shown) >= 50, report);
    assert.equal(closed, shown);
    const requests = (arm: string): number => Number(new RegExp(`\\| ${arm} \\| (\\d+) `).exec(report)![1]);
    assert.equal(requests('base') + requests('grpo'), Number(shown));
    assert.ok(requests('base') >= 15 && requests('grpo') >= 15, report);
    assert.ok(requests('logging') > 60, 'warm-up and cool-down');
    assert.match(report, /\| grpo \| .* \(-?\d\.\d{4} to -?\d\.\d{4}\)/);
    // each arm is another policy
    const settings = JSON.parse(readFileSync(path.join(loop.out, 'config.json'), 'utf8')) as {
      artifactsUri: string;
    };
    for (const arm of loop.arms)
      assert.ok(existsSync(path.join(settings.artifactsUri, 'policies', 'retriever', arm)));
    await assert.rejects(runClosedLoop(loop), /is there already/);
    const nothing = { ...loop, out: `${loop.out}-b`, runFolder: path.join(folder, 'empty') };
    await assert.rejects(runClosedLoop(nothing), /let evaluate -- rl finish there/);
  } finally {
    await stack.stop();
  }
});
