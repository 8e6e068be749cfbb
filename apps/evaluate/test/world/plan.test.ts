import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parsePlan, readEvaluationPlan } from '../../src/world/log/plan.ts';

test('the plan of the published tables is frozen, and a table needs at least 20,000 requests', () => {
  const plan = readEvaluationPlan();
  // another seed, rate or span makes published tables incomparable: write another plan with another name
  assert.equal(plan.hash, '4a9926cba2306865');
  assert.ok(plan.testExposures / plan.spec.positions >= 20_000);
});

test('the plan of a tenth has a hash of its own', () => {
  const tenth = readEvaluationPlan('evaluation-tenth');
  assert.equal(tenth.hash, 'e3563551ee062e1b');
  assert.equal(10 * tenth.trainExposures, readEvaluationPlan().trainExposures);
});

test('the hash names every parameter, and a plan with a wrong key is refused', () => {
  const file = new URL('../../plans/evaluation.json', import.meta.url);
  const plan = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  assert.notEqual(parsePlan({ ...plan, seed: 2 }).hash, parsePlan(plan).hash);
  assert.throws(() => parsePlan({ ...plan, sead: 1 }), /sead/);
  assert.throws(() => parsePlan({ ...plan, world: 'moon' }), /No world moon/);
});
