import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { createLogger, FolderArtifactStore, ManualClock } from '@onemall/service-kit';
import { CheckpointStore } from '../src/adapters/checkpoint-store.ts';
import { JournalTakenError, ManifestJournal } from '../src/adapters/manifest-journal.ts';
import { trainerConfig } from '../src/config.ts';
import { type Training, trainOnStream } from '../src/pipeline.ts';
import {
  type Checkpoint,
  decodeCheckpoint,
  encodeCheckpoint,
  type Progress,
} from '../src/stages/checkpoint-format.ts';
import { freshLossGuard } from '../src/stages/guard-loss.ts';
import type { StepManifest } from '../src/stages/manifest.ts';
import { progressAfterRollback, RolledBackError, rlShare } from '../src/stages/plan-rollback.ts';
import { sample } from './synthetic.ts';

const log = createLogger('test', 'fatal');

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-trainer-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

const checkpointAt = (step: number): Omit<Checkpoint, 'scalars' | 'extra'> => ({
  model: 'retriever',
  scenarios: ['a'],
  codebookVersions: { a: 1 },
  numCodes: { a: [16, 16, 16] },
  seed: 1,
  progress: {
    step,
    samples: step * 8,
    positions: [[0, step * 10]],
    cursor: 0,
    rewardPositions: [[0, 3]],
    usedRequestIds: ['r1'],
    tableOffsets: { 'item-sids-0': 7 },
    guard: freshLossGuard,
    lossFirst: 2,
  },
  createdMs: 5,
});
const stateAt = (step: number) => ({
  trainer: {
    tensors: new Map([
      ['w', Float32Array.of(step, Number.MIN_VALUE, -0, 1 / 3)],
      ['empty', new Float32Array(0)],
      ['adam.m', Float32Array.of(step * 2)],
    ]),
    scalars: { step },
  },
  extra: { seen: step },
});

test('a checkpoint comes back bit for bit', () => {
  const { trainer, extra } = stateAt(9);
  const files = encodeCheckpoint({ ...checkpointAt(9), scalars: trainer.scalars, extra }, trainer.tensors);
  const inPool = new Map(
    [...files].map(([name, bytes]) => [name, Buffer.concat([Buffer.of(7), bytes]).subarray(1)]),
  );
  for (const read of [files, inPool]) {
    const back = decodeCheckpoint(read);
    assert.deepEqual(back.tensors, new Map([...trainer.tensors].sort()));
    assert.deepEqual(back.checkpoint, { ...checkpointAt(9), scalars: trainer.scalars, extra });
  }
});

test('the newest valid checkpoint is loaded, a corrupt one is removed, keep N are kept', async (t) => {
  const root = await folderOf(t);
  const store = new CheckpointStore(new FolderArtifactStore(root), 'retriever', 3, log);
  assert.equal(await store.loadNewest(), null);
  for (const step of [10, 20, 30, 40]) await store.save(checkpointAt(step), stateAt(step));
  assert.deepEqual(
    (await store.list()).map((c) => c.step),
    [40, 30, 20],
  );
  assert.equal(await store.oldestStep(), 20);
  assert.equal((await store.loadNewest())?.stored.step, 40);

  const [newest, second] = await store.list();
  const tensors = path.join(root, newest!.uri, 'tensors.bin');
  const bytes = await readFile(tensors);
  bytes[0]! ^= 1;
  await writeFile(tensors, bytes);
  await rm(path.join(root, second!.uri, 'checkpoint.json'));
  const loaded = await store.loadNewest();
  assert.equal(loaded?.stored.step, 20);
  assert.deepEqual(loaded?.state.trainer.tensors.get('w'), stateAt(20).trainer.tensors.get('w'));
  assert.deepEqual(loaded?.state.extra, { seen: 20 });
  assert.deepEqual(
    (await store.list()).map((c) => c.step),
    [20],
  );
  // the same step trained again with other weights stands beside nothing and replaces nothing
  await store.save(checkpointAt(40), stateAt(41));
  assert.equal((await store.loadNewest())?.state.trainer.scalars.step, 41);
});

const manifest = (step: number): StepManifest => ({
  ...{ step, settings: 's', cursor: 0, numSamples: 1, groups: [], tableOffsets: {} },
  ranges: [{ partition: 0, from: step, to: step + 1 }],
});

test('the journal survives a crash in the middle of a line and forgets what is saved', async (t) => {
  const folder = path.join(await folderOf(t), 'trainer');
  assert.deepEqual(await ManifestJournal.read(folder), []);
  const journal = await ManifestJournal.take(folder, []);
  for (const step of [1, 2, 3]) await journal.append(manifest(step));
  await appendFile(path.join(folder, 'manifests.jsonl'), '{"step":4,"ran');
  await journal.close();
  assert.deepEqual(await ManifestJournal.read(folder), [1, 2, 3].map(manifest));

  const next = await ManifestJournal.take(folder, [2, 3].map(manifest));
  await next.append(manifest(4));
  await next.forgetUpTo(2);
  await next.append(manifest(5));
  await next.close();
  assert.deepEqual(await ManifestJournal.read(folder), [3, 4, 5].map(manifest));
  assert.deepEqual(await readdir(folder), ['manifests.jsonl']);
});

test('a trainer whose journal was taken over may neither write nor prune it', async (t) => {
  const folder = await folderOf(t);
  const stalled = await ManifestJournal.take(folder, []);
  await stalled.append(manifest(1));
  const owner = await ManifestJournal.take(folder, [manifest(1)]);
  await assert.rejects(stalled.append(manifest(2)), JournalTakenError);
  await assert.rejects(stalled.forgetUpTo(1), JournalTakenError);
  await owner.append(manifest(2));
  await stalled.close();
  await owner.close();
  assert.deepEqual(await ManifestJournal.read(folder), [1, 2].map(manifest));
});

test('the checkpoint that the gate is judging stays: training may have gone far by the time that it is in use', async (t) => {
  const store = new CheckpointStore(new FolderArtifactStore(await folderOf(t)), 'retriever', 2, log);
  for (const step of [10, 20]) await store.save(checkpointAt(step), stateAt(step));
  store.stepJudged = 20;
  for (const step of [30, 40, 50]) await store.save(checkpointAt(step), stateAt(step));
  const steps = async () => (await store.list()).map((c) => c.step);
  assert.deepEqual(await steps(), [50, 40, 20]);
  store.stepInUse = 20;
  store.stepJudged = 50;
  for (const step of [60, 70]) await store.save(checkpointAt(step), stateAt(step));
  assert.deepEqual(await steps(), [70, 60, 50, 20]);
  store.stepJudged = 70;
  await store.save(checkpointAt(80), stateAt(80));
  assert.deepEqual(await steps(), [80, 70, 20], 'one that was refused goes');
});

test('rolling back makes the checkpoint of the policy in use the newest, without the rewards seen since', async (t) => {
  const root = await folderOf(t);
  const store = new CheckpointStore(new FolderArtifactStore(root), 'retriever', 2, log);
  await store.save(checkpointAt(10), stateAt(10));
  store.stepInUse = 10;
  for (const step of [20, 30, 40]) await store.save(checkpointAt(step), stateAt(step));
  assert.deepEqual(
    (await store.list()).map((c) => c.step),
    [40, 30, 10],
    'the one in use stays beyond the number kept',
  );
  const now = checkpointAt(40).progress;
  const seen = { rewardPositions: [[0, 99]] as [number, number][], usedRequestIds: ['r1', 'r2'] };
  for (const rollbacks of [1, 2]) {
    const back = await store.rollBack((accepted) =>
      progressAfterRollback(accepted, { ...now, ...(rollbacks > 1 && { rollbacks: rollbacks - 1 }) }, seen),
    );
    assert.equal(back!.step, 10);
    const { checkpoint, state } = (await store.loadNewest())!;
    assert.deepEqual(checkpoint.progress, {
      ...checkpointAt(10).progress,
      ...seen,
      rollbacks,
      rlRampFrom: 10,
    });
    assert.deepEqual(state.trainer.tensors, new Map([...stateAt(10).trainer.tensors].sort()));
    assert.equal((await store.list()).length, 1);
    await store.save(checkpointAt(20), stateAt(20));
  }
  store.stepInUse = 5;
  assert.equal(await store.rollBack((accepted) => accepted), null, 'its checkpoint is gone');
});

test('after a rollback the weight of L_RL begins at 0 and rises', () => {
  assert.equal(rlShare({}, 5, 100), 1);
  const shares = [101, 102, 151, 201, 900].map((step) => rlShare({ rlRampFrom: 100 }, step, 100));
  assert.deepEqual(shares, [0, 0.01, 0.5, 1, 1]);
});

test('refused policies send training back only where reward groups were trained since the policy in use', async (t) => {
  const store = new CheckpointStore(new FolderArtifactStore(await folderOf(t)), 'retriever', 3, log);
  for (const step of [10, 20]) await store.save(checkpointAt(step), stateAt(step));
  store.stepInUse = 10;
  const errors: string[] = [];
  /** Two refusals, then one step with a reward group, at which the service stops. @returns progress after it */
  const trainOn = async (progress: Progress): Promise<Progress> => {
    const stopping = new AbortController();
    const { progress: _, createdMs: __, ...identity } = checkpointAt(progress.step);
    const training = {
      ...{ config: trainerConfig({}), clock: new ManualClock(0), stopping: stopping.signal },
      log: { info() {}, error: (_: object, message: string) => void errors.push(message) },
      learner: {
        batchSize: 1,
        encode: () => [],
        step: async () => {
          stopping.abort();
          return { loss: 1, gradNorm: 1, stepMs: 1 };
        },
        save: async () => stateAt(21),
      },
      rewards: {
        takeFor: () => [{ requestId: 'r2', partition: 0, offset: 8 }],
        readUpTo: () => [[0, 9]],
        positions: () => [[0, 9]],
        usedRequestIds: () => ['r1', 'r2'],
      },
      samples: {
        drawer: {
          openSamples: 1,
          draw: () => ({
            samples: [{ sample: sample(1), appendedMs: 0 }],
            ranges: [{ partition: 0, from: 200, to: 201 }],
            cursor: 0,
          }),
        },
        madeRoom() {},
      },
      journal: { append: async () => {}, forgetUpTo: async () => {} },
      release: { refusals: 2, busy: false, failed: new Promise<never>(() => {}), settled: async () => {} },
      report: { stepDone() {}, newest: () => ({}) },
      ...{ tables: null, gate: null, checkpoints: store, replay: [], settings: 's', keepSidsMs: 0 },
      ...{ identity, progress },
    } as unknown as Training;
    await trainOnStream(training);
    assert.equal(training.release.refusals, 0, 'the next refusals are counted anew');
    return training.progress;
  };

  const alone = await trainOn({ ...checkpointAt(20).progress, lastGroupStep: 10 });
  assert.match(
    errors.join(),
    /^2 policies in a row were refused, and no reward group was trained since .* next-token training alone/,
  );
  assert.deepEqual([alone.step, alone.lastGroupStep, alone.rollbacks], [21, 21, undefined]);
  assert.equal((await store.loadNewest())!.stored.step, 21, 'it went on and kept what it learned');

  await assert.rejects(
    trainOn(alone),
    (e: unknown) => e instanceof RolledBackError && /back from step 21 to 10/.test(e.message),
  );
  assert.equal((await store.loadNewest())!.checkpoint.progress.rollbacks, 1);
});
