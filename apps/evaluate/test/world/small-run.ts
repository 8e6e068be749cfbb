/** Runs of a study on the small world, in a folder that goes with the test process. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import type { WorldRun } from '../../src/world/samples/prepare-world.ts';
import { smallPlan } from './small-plan.ts';

export const folder = mkdtempSync(path.join(tmpdir(), 'onemall-world-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** @param name of its folder: a run of the same name goes on with what is there */
export const run = (name: string, changes: Partial<WorldRun> = {}): WorldRun => ({
  plan: smallPlan({ trainExposures: 3_000, testExposures: 600 }),
  folder: path.join(folder, name),
  positives: 200,
  requests: 30,
  models: ['onemall'],
  preset: 'tiny',
  historyLength: 6,
  seed: 1,
  print: () => undefined,
  ...changes,
});
