/** When and where a fork begins, and how it is held to a policy of other codebooks. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { Codebook, PolicyVersion } from '@onemall/contracts';
import { createRetrievalTrainer, type RetrievalTrainer } from '@onemall/learning';
import { createLogger, FolderArtifactStore } from '@onemall/service-kit';
import { CheckpointStore } from '../src/adapters/checkpoint-store.ts';
import { forkName, lineageInUse } from '../src/adapters/lineages.ts';
import { type MeasuredSide, RecallGate } from '../src/adapters/recall-gate.ts';
import { SampleEncoder } from '../src/adapters/sample-encoder.ts';
import { freshLossGuard } from '../src/stages/guard-loss.ts';
import { forkProgress, planFork } from '../src/stages/plan-fork.ts';
import { codebook, NUM_CODES, SCENARIOS, START_MS, sample, sidOf } from './synthetic.ts';

const versionsOf = (version: number) => Object.fromEntries(SCENARIOS.map((s) => [s, version]));
const inUse = { codebookVersions: versionsOf(1) } as unknown as PolicyVersion;
const books = (...versions: number[]) =>
  new Map<string, Codebook>(SCENARIOS.map((s, i) => [s, codebook(s, versions[i])]));
const later = { nowMs: START_MS + 60_000, quietMs: 30_000 };
const none = () => 0;

test('a fork waits for a policy, newer codebooks, a quiet time and a SID for everything', () => {
  const why = (...of: Parameters<typeof planFork>) => {
    const plan = planFork(...of);
    return plan.kind === 'wait' ? plan.why : plan.to.codebookVersions;
  };
  assert.match(String(why(SCENARIOS, null, books(2, 2, 2), none, later)), /no policy is published/);
  const two = new Map([...books(2, 2, 2)].slice(1));
  assert.match(String(why(SCENARIOS, inUse, two, none, later)), /not every scenario has a codebook/);
  assert.match(String(why(SCENARIOS, inUse, books(1, 1, 1), none, later)), /no codebook is newer/);
  const soon = { nowMs: START_MS + 29_999, quietMs: 30_000 };
  assert.match(String(why(SCENARIOS, inUse, books(1, 2, 1), none, soon)), /codebooks are still coming/);
  assert.match(String(why(SCENARIOS, inUse, books(1, 2, 1), () => 7, later)), /7 items have no SID/);
  assert.deepEqual(why(SCENARIOS, inUse, books(1, 2, 1), none, later), {
    ...versionsOf(1),
    [SCENARIOS[1]]: 2,
  });
  const asked: unknown[] = [];
  const ask = (...of: unknown[]) => {
    asked.push(...of);
    return 0;
  };
  planFork(SCENARIOS, inUse, books(2, 2, 2), ask, later);
  assert.deepEqual(asked, [versionsOf(2), versionsOf(1)]);
});

test('a fork goes back by the tail, not before the beginning, and forgets what belongs to the other codebooks', () => {
  const progress = forkProgress(
    {
      ...{ step: 70, samples: 1_120, cursor: 2, lossFirst: 8 },
      positions: [
        [0, 900],
        [1, 40],
        [2, 500],
      ],
      ...{ rewardPositions: [[0, 3]], usedRequestIds: ['r'], tableOffsets: { 'item-sids-0': 4 } },
      ...{ guard: { ...freshLossGuard, mean: 3 }, rollbacks: 1, rlRampFrom: 9 },
    } as unknown as Parameters<typeof forkProgress>[0],
    300,
  );
  assert.deepEqual(progress.positions, [
    [0, 800],
    [1, 0],
    [2, 400],
  ]);
  assert.deepEqual(
    [progress.step, progress.samples, progress.guard, progress.rlRampFrom],
    [70, 1_120, freshLossGuard, undefined],
  );
});

test('the lineage in use is that of the policy in use, also when it is a fork', async (t) => {
  const root = await mkdtemp(path.join(tmpdir(), 'onemall-trainer-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  const artifacts = new FolderArtifactStore(root);
  const log = createLogger('test', 'fatal');
  const of = (version: number) =>
    lineageInUse(artifacts, 'retriever', { codebookVersions: versionsOf(version) }, log);
  const name = forkName('retriever', versionsOf(2));
  assert.equal(name, 'retriever-on-live_stream.2-product_card.2-short_video.2');
  await new CheckpointStore(artifacts, name, 3, log).save(
    {
      ...{
        model: 'retriever',
        scenarios: [...SCENARIOS],
        codebookVersions: versionsOf(2),
        numCodes: {},
        seed: 1,
      },
      progress: forkProgress({ step: 5, positions: [] } as unknown as Parameters<typeof forkProgress>[0], 0),
      createdMs: 0,
    },
    { trainer: { tensors: new Map(), scalars: {} }, extra: null },
  );
  assert.equal(await lineageInUse(artifacts, 'retriever', null, log), 'retriever');
  assert.deepEqual([await of(1), await of(2)], ['retriever', name]);
});

const numCodes = Object.fromEntries(SCENARIOS.map((s) => [s, NUM_CODES]));
/** Items under other codes in version 2: c1 and c2 change places. */
const sidIn = (version: number, itemId: string) => {
  const [scenario, i] = [
    itemId.slice(0, itemId.lastIndexOf('-')),
    Number(itemId.slice(itemId.lastIndexOf('-') + 1)),
  ];
  const { c1, c2, c3 } = sidOf(scenario, i);
  return version === 1 ? { scenario, c1, c2, c3 } : { scenario, c1: c2, c2: c1, c3 };
};
const encoderOn = (version: number, counted: string[] = []) =>
  new SampleEncoder({
    scenarios: SCENARIOS,
    codebooks: { codebookVersions: versionsOf(version), numCodes },
    tables: { sidOf: (itemId) => (itemId.endsWith('-7') && version === 2 ? null : sidIn(version, itemId)) },
    historyLength: 6,
    meter: { add: (name) => void counted.push(name) },
  });

test('a sample trains under the SID of the trainer, whatever version it carries', () => {
  const counted: string[] = [];
  const one = Array.from({ length: 50 }, (_, n) => sample(n)).find((s) => !s.exposure.itemId.endsWith('-7'))!;
  const [old, fresh] = [encoderOn(1).sample(one)!, encoderOn(2, counted).sample(one)!];
  assert.deepEqual(old.target, one.sid);
  assert.deepEqual(fresh.target, sidIn(2, one.exposure.itemId));
  assert.notDeepEqual(fresh.request, old.request, 'the history, too');
  const gone = Array.from({ length: 500 }, (_, n) => sample(n)).find((s) =>
    s.exposure.itemId.endsWith('-7'),
  )!;
  assert.equal(encoderOn(2, counted).sample(gone), null);
  assert.deepEqual(counted, ['left_out_no_own_sid']);
});

test('a fork is held to the recall of the policy in use, each under its own SIDs', async (t) => {
  const newTrainer = () =>
    createRetrievalTrainer({
      ...{ preset: 'tiny', scenarios: SCENARIOS, numCodes, seed: 1 },
      optimizer: { learningRate: 1e-2, warmupSteps: 0 },
    });
  const trained = async (version: number, steps: number): Promise<RetrievalTrainer> => {
    const [trainer, encoder] = [await newTrainer(), encoderOn(version)];
    for (let step = 0; step < steps; step++) {
      const batch = Array.from({ length: 16 }, (_, i) => encoder.sample(sample(step * 16 + i)));
      await trainer.step({ samples: batch.filter((s) => s !== null) });
    }
    return trainer;
  };
  const files = (trainer: RetrievalTrainer, version: number) =>
    trainer.exportPolicy({
      policyVersion: `${trainer.steps}-${version}`,
      codebookVersions: versionsOf(version),
      beamWidths: [8],
    });
  const side = (version: number): MeasuredSide => ({
    codebookVersions: versionsOf(version),
    encode: (one) => encoderOn(version).sample(one),
    sidsNow: () =>
      SCENARIOS.flatMap((s) => Array.from({ length: 60 }, (_, i) => sidIn(version, `${s}-${i}`))),
  });
  const gate = new RecallGate({
    // Single scenarios have too few to be judged.
    rules: { perScenario: 20, minRequests: 25, beamWidth: 8, maxRecallFall: 0.12, maxLegalityFall: 1 },
    own: side(2),
    inUse: side(1),
  });
  const trainers = [await trained(1, 150), await newTrainer(), await trained(2, 150)] as const;
  t.after(() => Promise.all([...trainers.map((trainer) => trainer.close()), gate.close()]));
  const [old, blank, fork] = trainers;
  assert.deepEqual(gate.comparesWith, versionsOf(1));
  await gate.compareWith(await files(old, 1));
  for (let n = 0; n < 120; n++) gate.see(sample(50_000 + n));
  gate.encodeWaiting();
  const judge = async (trainer: RetrievalTrainer) =>
    gate.judge(await files(trainer, 2), new AbortController().signal);

  const refused = await judge(blank);
  assert.equal(refused.outcome, 'refuse');
  const { beam_recall_published: held } = refused.figures[0]!.values;
  assert.ok(held! > 0.25, `the policy in use is measured under its own SIDs: ${held}`);
  const passed = await judge(fork);
  assert.equal(passed.outcome, 'publish', passed.reasons.join());
  assert.equal(passed.figures[0]!.values.beam_recall_published, held);
  await gate.accepted();
  assert.deepEqual(gate.comparesWith, versionsOf(2));
  const next = await judge(fork);
  assert.equal(next.figures[0]!.values.beam_recall_published, passed.figures[0]!.values.beam_recall);
});
