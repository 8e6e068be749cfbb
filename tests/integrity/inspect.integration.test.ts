/** `npm run inspect` beside the service, on exposures of which the logs know everything. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { startTestStack, type TestStack } from '@onemall/testkit';
import type { Story } from '../../services/sample-assembler/inspect/story.ts';
import { makeTraffic } from '../../services/sample-assembler/test/traffic.ts';
import { Lab } from './lab.ts';

const MAIN = path.join(import.meta.dirname, '../../services/sample-assembler/inspect/main.ts');

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

function inspect(
  env: Record<string, string>,
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [MAIN, ...args],
      { env: { ...process.env, ...env } },
      (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

test('inspect tells what became of an exposure, its actions and copies, and says so where there is none', async () => {
  const lab = await Lab.create(stack, { ONEMALL_MAX_DELAY_MS: '600000' });
  try {
    const startMs = Date.now() - 50_000;
    const arrivals = makeTraffic({ seed: 51, numRequests: 60, startMs, copyShare: 0, unnamedShare: 0 });
    await lab.startAlone();
    const clicked = arrivals.find((a) => a.topic === 'clicks' && arrivals.some((b) => isShown(b, a)))!;
    if (clicked.topic !== 'clicks') throw new Error('a click was looked for');
    const exposureId = clicked.value.exposureId!;
    await lab.send([...arrivals, { ...clicked, arrivesMs: arrivals.at(-1)!.arrivesMs }]);
    await lab.settle();
    // The same exposure again, long after it closed.
    const shown = arrivals.find((a) => isShown(a, clicked))!;
    await lab.scene.sendTraffic([shown]);
    const ask = ['sample-assembler', '--exposure', exposureId];
    const { stdout, stderr, code } = await inspect(lab.scene.env, ...ask, '--json');
    assert.equal(code, 0, stderr);
    const story = JSON.parse(stdout) as Story;
    assert.equal(story.state, 'closed');
    const fates = story.records.map((r) => `${r.topic} ${r.fate}`);
    assert.equal(fates[0], 'exposures counted');
    // Its copy was too late to be told from a new one, or is not read yet.
    assert.match(fates[1]!, /^exposures (late|unread|duplicate)$/);
    assert.ok(fates.includes('clicks counted'), stdout);
    assert.ok(fates.includes('clicks duplicate'), stdout);
    const kinds = story.samples.map((s) => s.kind).sort();
    assert.deepEqual([kinds[0], kinds.at(-1)], kinds.includes('BUY') ? ['BUY', 'FINAL'] : ['CLICK', 'FINAL']);
    assert.ok(story.watermarkMs >= story.closesAtMs);

    const told = await inspect(lab.scene.env, ...ask);
    assert.match(told.stdout, new RegExp(`^exposure ${exposureId}: closed\n`));
    assert.match(told.stdout, /counted: \d+ ms after the exposure/);
    const unknown = await inspect(lab.scene.env, 'sample-assembler', '--exposure', 'never-shown');
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /^No exposure never-shown in the log of namespace test-/);
    const wrong = await inspect(lab.scene.env, 'retriever', '--exposure', 'x');
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /Expected the stage to inspect, sample-assembler, got retriever/);
    const nobody = await inspect({ ...lab.scene.env, ONEMALL_KAFKA_BROKERS: '127.0.0.1:1' }, ...ask);
    assert.equal(nobody.code, 1);
    assert.match(nobody.stderr, /No broker answers at 127\.0\.0\.1:1/);
  } finally {
    await lab.close();
  }
});

function isShown(shown: ReturnType<typeof makeTraffic>[number], action: typeof shown): boolean {
  if (shown.topic !== 'exposures' || action.topic === 'exposures') return false;
  const delayMs = action.value.eventTimeMs - shown.value.eventTimeMs;
  return shown.value.exposureId === action.value.exposureId && delayMs >= 0 && delayMs <= 1_500;
}
