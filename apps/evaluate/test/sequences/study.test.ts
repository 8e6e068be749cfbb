import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { engineOf } from '../../src/engine-option.ts';
import { RunFolder } from '../../src/sequences/adapters/run-folder.ts';
import { serves } from '../../src/sequences/main.ts';
import { GeneratorRun } from '../../src/sequences/models/generator-run.ts';
import { forSet, type GeneratorRecipe, ONEMALL, TIGER } from '../../src/sequences/models/recipes.ts';
import { SASREC, SasrecRun } from '../../src/sequences/models/sasrec-run.ts';
import { makeTokenizer } from '../../src/sequences/models/tokens.ts';
import { generatorLists } from '../../src/sequences/rank-lists.ts';
import { questions } from '../../src/sequences/stages/leave-one-out.ts';
import { parseSequences, type SequenceSet } from '../../src/sequences/stages/parse-sequences.ts';
import { rankMetrics } from '../../src/sequences/stages/rank-metrics.ts';
import { SettingsError, Study } from '../../src/sequences/study.ts';
import type { Report } from '../../src/sequences/train-run.ts';

const NUM_ITEMS = 18;
/** After item i always comes i + 1, and 1 after the last: what comes next is certain. */
function cycle(users: number): SequenceSet {
  const lines = Array.from({ length: users }, (_, u) => {
    const length = 4 + (u % 5);
    return [`u${u}`, ...Array.from({ length }, (_, i) => 1 + ((u * 7 + i) % NUM_ITEMS))].join(' ');
  });
  return { name: 'cycle', ...parseSequences(lines.join('\n'), 'cycle.txt') };
}
const vectors = {
  data: Float32Array.from({ length: NUM_ITEMS * 8 }, (_, i) =>
    Math.sin((i % 8) * 13 + Math.floor(i / 8) * 5),
  ),
  dim: 8,
};
const small: GeneratorRecipe = {
  ...ONEMALL,
  dim: 32,
  heads: 2,
  encoderLayers: 1,
  layers: 1,
  epochs: 9,
  learningRate: 8e-3,
  dropout: 0.05,
  teacherShare: 0,
  frozenVectors: false,
  beam: 10,
};
const quiet = (): void => {};

function folder(t: TestContext): string {
  const made = mkdtempSync(path.join(tmpdir(), 'study-'));
  t.after(() => rmSync(made, { recursive: true }));
  return made;
}

test('SASRec learns what always comes next', async (t) => {
  const set = cycle(180);
  const run = await SasrecRun.start(set, 1, {
    ...SASREC,
    dim: 32,
    dropout: 0.1,
    negatives: 16,
    learningRate: 1e-2,
    epochs: 12,
  });
  t.after(() => run.trainer.close());
  await run.train(new RunFolder(folder(t)), quiet);
  const ranks = await run.rank(questions(set.sequences, 'test'));
  assert.ok(rankMetrics(ranks.in)['N@5'] > 0.97, JSON.stringify(rankMetrics(ranks.in)));
});

for (const [name, change] of Object.entries({
  OneMall: {},
  "TIGER's form": {
    normalizer: TIGER.normalizer,
    contrastAt: TIGER.contrastAt,
    tokenForm: TIGER.tokenForm,
    epochs: 15,
    validateEvery: 15,
  },
} satisfies Record<string, Partial<GeneratorRecipe>>))
  test(`${name} learns what always comes next`, async (t) => {
    const set = cycle(120);
    const recipe = { ...small, ...change };
    const { tokens } = await makeTokenizer(vectors, recipe.tokenForm, 1);
    const run = await GeneratorRun.start(set, 1, recipe, { tokens });
    t.after(() => run.trainer.close());
    await run.train(new RunFolder(folder(t)), quiet);
    const lists = await generatorLists(run, set, recipe.beam);
    for (const [list, { test }] of Object.entries(lists))
      assert.ok(test.in['N@5'] > 0.9, `${list}: ${JSON.stringify(test.in)}`);
    assert.deepEqual(Object.keys(lists), name === 'OneMall' ? ['beam', 'dense', 'beam + dense'] : ['beam']);
  });

test('a run that was stopped and taken up ends with the same weights, bit for bit', async (t) => {
  const set = cycle(60);
  const recipe = { ...SASREC, dim: 16, negatives: 8, epochs: 4 };
  const weights = async (at: RunFolder, stopAfter?: number): Promise<Map<string, Float32Array>> => {
    const run = await SasrecRun.start(set, 5, recipe);
    let epochs = 0;
    const training = run.train(at, (line, passing) => {
      if (!passing && line.startsWith('epoch') && ++epochs === stopAfter) throw new Error('stopped');
    });
    if (stopAfter === undefined) await training;
    else await assert.rejects(training, /stopped/);
    const { tensors } = await run.trainer.state();
    await run.trainer.close();
    return tensors;
  };
  const undisturbed = await weights(new RunFolder(folder(t)));
  const again = new RunFolder(folder(t));
  await weights(again, 1);
  await weights(again, 1);
  assert.deepEqual(await weights(again), undisturbed);
});

test('a study trains SASRec first where it is needed, keeps results, and refuses a folder of other settings', async (t) => {
  const out = folder(t);
  const set = cycle(40);
  const lines: string[] = [];
  const report: Report = (line, passing) => {
    if (!passing) lines.push(line);
  };
  const study = new Study(set, out, report, { sasrec: { ...SASREC, dim: 16, negatives: 8, epochs: 2 } });
  const recipe: GeneratorRecipe = { ...small, epochs: 1, frozenVectors: true, teacherShare: 0.6 };
  const first = await study.generator('mine', recipe, 3);
  assert.deepEqual(Object.keys(first.lists), ['beam', 'dense', 'beam + dense', 'beam + SASRec']);
  assert.match(lines[0]!, /^sasrec-seed3: epoch 1/);
  const trained = lines.length;
  assert.deepEqual(await study.generator('mine', recipe, 3), JSON.parse(JSON.stringify(first)));
  await study.sasrec(3);
  assert.equal(lines.length, trained, 'a run with a result is not repeated');
  await assert.rejects(study.generator('mine', { ...recipe, dropout: 0.3 }, 3), SettingsError);
  const bare: GeneratorRecipe = { ...small, tokenSource: 'text' };
  await assert.rejects(study.generator('text', bare, 3), /has no item texts/);
  await assert.rejects(study.generator('given', { ...bare, tokenSource: 'given' }, 3), /has no embeddings/);
});

test('another engine trains the same model, and its folder is its own', async (t) => {
  const set = cycle(40);
  const sasrec = { ...SASREC, dim: 16, negatives: 8, epochs: 1 };
  const chosen: string[] = [];
  const wasm = engineOf('wasm', (line) => chosen.push(line));
  const [out, onCpu] = [folder(t), await new Study(set, folder(t), quiet, { sasrec }).sasrec(3)];
  const onWasm = await new Study(set, out, quiet, { sasrec, engine: wasm }).sasrec(3);
  assert.match(chosen.join(), /^trains on .*wasm/i);
  const lossOf = ({ progress }: typeof onCpu): number => progress.epochs[0]!.losses.loss!;
  assert.ok(Math.abs(lossOf(onWasm) / lossOf(onCpu) - 1) < 1e-4);
  await assert.rejects(new Study(set, out, quiet, { sasrec }).sasrec(3), SettingsError);
  await new Study(set, out, quiet, { sasrec, engine: wasm }).sasrec(3);
});

test('a run folder notices data of the same counts, and a teacher that another SASRec made', async (t) => {
  const out = folder(t);
  const set = { ...cycle(40), texts: Array.from({ length: NUM_ITEMS }, (_, i) => `item ${i}`) };
  const studyOf = (of: SequenceSet) =>
    new Study(of, out, quiet, { sasrec: { ...SASREC, dim: 16, negatives: 8, epochs: 1 } });
  const taught: GeneratorRecipe = { ...small, epochs: 1, teacherShare: 0.6 };
  const texts: GeneratorRecipe = { ...small, epochs: 1, tokenSource: 'text' };
  await studyOf(set).generator('taught', taught, 3);
  await studyOf(set).generator('texts', texts, 3);

  const edited = { ...set, sequences: set.sequences.map((s, user) => (user === 7 ? s.toReversed() : s)) };
  for (const rejected of [studyOf(edited).sasrec(3), studyOf(edited).generator('taught', taught, 3)])
    await assert.rejects(
      rejected,
      (e: unknown) =>
        e instanceof SettingsError && /other data: its sequences have another sha256/.test(e.message),
    );
  const renamed = { ...set, texts: set.texts.toReversed() };
  await assert.rejects(studyOf(renamed).generator('texts', texts, 3), /its texts have another sha256/);
  // which a run that reads no texts does not care about
  await studyOf(renamed).generator('taught', taught, 3);

  const sasrec = new RunFolder(path.join(out, 'sasrec-seed3'));
  const settings = sasrec.read<{ set: { sha256?: unknown } }>('settings')!;
  const { sha256: _, ...counts } = settings.set;
  sasrec.write('settings', { ...settings, set: counts });
  await studyOf(set).sasrec(3);
  assert.deepEqual(sasrec.read('settings'), settings);

  const advice = sasrec.readArray('teacher-items')!;
  sasrec.writeArray(
    'teacher-items',
    advice.map(() => 1),
  );
  sasrec.write('teacher', { sasrec: 'another' });
  await studyOf(set).generator('taught-again', taught, 3);
  assert.deepEqual(sasrec.readArray('teacher-items'), advice);
});

test('a folder with embeddings and without texts has the rows whose tokens are of content', async (t) => {
  const out = folder(t);
  const bare = cycle(40);
  const set = { ...bare, embeddings: vectors };
  for (const row of ['tiger', 'onemall-without-sasrec', 'text-tokens']) {
    assert.ok(serves(set, row));
    assert.ok(!serves(bare, row));
  }
  const recipe: GeneratorRecipe = { ...small, epochs: 1, tokenSource: 'text', tokenForm: 'rq' };
  const { tokens } = await new Study(set, out, quiet).generator('mine', recipe, 3);
  const { conflict, exclusive, numCodes } = (await makeTokenizer(vectors, 'rq', 3)).tokens;
  assert.deepEqual(tokens, { conflict, exclusive, numCodes });
  const settings = readFileSync(path.join(out, 'mine-seed3', 'settings.json'), 'utf8');
  assert.equal((JSON.parse(settings) as { recipe: GeneratorRecipe }).recipe.tokenSource, 'given');
  // texts come first where there are both
  const both = { ...set, texts: Array.from({ length: NUM_ITEMS }, (_, i) => `item ${i}`) };
  assert.equal(forSet(recipe, both).tokenSource, 'text');
});

test('a damaged checkpoint is named', (t) => {
  const at = folder(t);
  const runFolder = new RunFolder(at);
  const state = { tensors: new Map([['w', Float32Array.of(1, 2, 3)]]), step: 4 };
  runFolder.writeCheckpoint('run', { state, progress: { epochs: 2 } });
  assert.deepEqual(runFolder.readCheckpoint('run'), { state, progress: { epochs: 2 } });
  const file = path.join(at, 'run.checkpoint');
  const bytes = readFileSync(file);
  bytes[bytes.length - 40]! ^= 1;
  writeFileSync(file, bytes);
  assert.throws(() => runFolder.readCheckpoint('run'), /run\.checkpoint is damaged/);
  assert.equal(runFolder.readCheckpoint('other'), undefined);
});
