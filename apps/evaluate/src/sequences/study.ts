/**
 * The runs of a study and what they need of each other.
 *   waits for: SASRec of the same seed, where a generator takes its vectors or its advice
 *   leaves: one folder per run with checkpoints and result.json; a run that has one is not repeated
 */
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { CPU, type Engine } from '../engine-option.ts';
import { RunFolder } from './adapters/run-folder.ts';
import { GeneratorRun } from './models/generator-run.ts';
import { forSet, type GeneratorRecipe } from './models/recipes.ts';
import { SASREC, type SasrecRecipe, SasrecRun } from './models/sasrec-run.ts';
import { makeTokenizer, textVectors } from './models/tokens.ts';
import { generatorLists, judge, type ListResult } from './rank-lists.ts';
import { dataHashes, hashOfValues } from './stages/data-hashes.ts';
import { type Question, questions, trainingSequences, validationQuestions } from './stages/leave-one-out.ts';
import { DataError, type SequenceSet } from './stages/parse-sequences.ts';
import { emptyTeacher, type Teacher } from './stages/soft-targets.ts';
import type { Report, RunProgress } from './train-run.ts';

export interface RunResult {
  row: string;
  seed: number;
  parameters: number;
  progress: RunProgress;
  /** CPU seconds of all epochs, without validation. */
  trainCpuSeconds: number;
  tokens?: { numCodes: number[]; conflict: number; exclusive: number };
  lists: Record<string, ListResult>;
}

/** A results folder that belongs to other settings. */
export class SettingsError extends Error {
  override name = 'SettingsError';
}

const TEACHER_TOP = 20;
const VECTORS = 'items';

/** What the results of a folder stand on. */
interface Settings {
  set: {
    name: string;
    users: number;
    numItems: number;
    numInteractions: number;
    /** Of the data that the run reads; absent in folders from before it was kept. */
    sha256?: Record<string, string>;
  };
  recipe: SasrecRecipe | GeneratorRecipe;
  /** Absent: cpu. */
  engine?: Engine['name'];
}

export class Study {
  readonly #set: SequenceSet;
  readonly #out: string;
  readonly #report: Report;

  readonly #sasrec: SasrecRecipe;
  readonly #engine: Engine;
  readonly #hashes: Record<string, string>;

  constructor(
    set: SequenceSet,
    out: string,
    report: Report,
    { sasrec = SASREC, engine = CPU }: { sasrec?: SasrecRecipe; engine?: Engine } = {},
  ) {
    this.#set = set;
    this.#out = out;
    this.#report = report;
    this.#sasrec = sasrec;
    this.#engine = engine;
    this.#hashes = dataHashes(set);
  }

  async sasrec(seed: number): Promise<RunResult> {
    const { folder, report, known } = this.#open('sasrec', seed, this.#sasrec);
    if (known) return known;
    const run = await this.#trainedSasrec(seed, report);
    try {
      const { trainer } = run.model;
      const { sequences } = this.#set;
      const ranks = async (asked: readonly Question[]) => judge(await run.model.rank(asked));
      report('ranks all items', true);
      const lists = {
        dense: {
          validation: await ranks(validationQuestions(sequences)),
          test: await ranks(questions(sequences, 'test')),
        },
      };
      const result = summary('sasrec', seed, trainer.parameters, run.progress, lists);
      folder.writeArray(VECTORS, await run.model.itemVectors());
      folder.write('result', result);
      return result;
    } finally {
      await run.model.trainer.close();
    }
  }

  async generator(row: string, asked: GeneratorRecipe, seed: number): Promise<RunResult> {
    const recipe = forSet(asked, this.#set);
    const { folder, report, known } = this.#open(row, seed, recipe);
    if (known) return known;
    const usesSasrec = recipe.tokenSource === 'sasrec' || recipe.frozenVectors || recipe.teacherShare > 0;
    if (usesSasrec) await this.sasrec(seed);
    const vectors = usesSasrec ? this.#sasrecVectors(seed) : undefined;
    report('makes tokens', true);
    const source = {
      sasrec: () => vectors!,
      text: () => textVectors(this.#set),
      given: () => this.#givenVectors(),
    }[recipe.tokenSource]();
    const { tokens } = await makeTokenizer(source, recipe.tokenForm, seed);
    const sasrec = usesSasrec ? (await this.#trainedSasrec(seed, report)).model : undefined;
    const teacher = recipe.teacherShare > 0 ? await this.#teacher(sasrec!, seed, report) : undefined;
    const run = await GeneratorRun.start(this.#set, seed, recipe, {
      tokens,
      ...(recipe.frozenVectors && { vectors: vectors! }),
      ...(teacher && { teacher }),
      engine: this.#engine,
    });
    try {
      const progress = await run.train(folder, report);
      report(`ranks by beams of ${recipe.beam}`, true);
      const lists = await generatorLists(run, this.#set, recipe.beam, sasrec);
      const result = summary(row, seed, run.trainer.parameters, progress, lists);
      const { numCodes, conflict, exclusive } = tokens;
      result.tokens = { numCodes, conflict, exclusive };
      folder.write('result', result);
      return result;
    } finally {
      await run.trainer.close();
      await sasrec?.trainer.close();
    }
  }

  #open(
    row: string,
    seed: number,
    recipe: SasrecRecipe | GeneratorRecipe,
  ): { folder: RunFolder; report: Report; known: RunResult | undefined } {
    const name = `${row}-seed${seed}`;
    const folder = new RunFolder(path.join(this.#out, name));
    this.#checkSettings(folder, recipe);
    const report: Report = (line, passing) => this.#report(`${name}: ${line}`, passing);
    return { folder, report, known: folder.read<RunResult>('result') };
  }

  /** A folder belongs to one recipe on one set: figures of two must not mix. */
  #checkSettings(folder: RunFolder, recipe: SasrecRecipe | GeneratorRecipe): void {
    const { name, numItems, numInteractions, users } = this.#set;
    const counts = { name, users: users.length, numItems, numInteractions };
    const sha256 = this.#hashesFor(recipe);
    const { name: engine } = this.#engine;
    const settings: Settings = { set: { ...counts, sha256 }, recipe, ...(engine !== 'cpu' && { engine }) };
    const known = folder.read<Settings>('settings');
    // a folder from before hashes were kept is taken for one of this data where the counts agree
    const before: Settings | undefined = known && { ...known, set: { sha256, ...known.set } };
    if (before !== undefined && !isDeepStrictEqual(before, settings)) {
      const changed = Object.keys(sha256).filter((kind) => before.set.sha256![kind] !== sha256[kind]);
      const what =
        changed.length > 0
          ? `of other data: its ${changed.join(' and ')} have another sha256`
          : 'with other settings or of other data';
      throw new SettingsError(
        `${folder.folder} holds a run ${what} (settings.json): remove it, or name another folder with --out`,
      );
    }
    if (!known?.set.sha256) folder.write('settings', settings);
  }

  /** Of what a run reads: texts that are edited are nothing to a run that makes no tokens of them. */
  #hashesFor(recipe: SasrecRecipe | GeneratorRecipe): Record<string, string> {
    const source = 'tokenSource' in recipe ? recipe.tokenSource : 'sasrec';
    const kinds = ['sequences', ...{ sasrec: [], text: ['texts'], given: ['embeddings'] }[source]];
    return Object.fromEntries(
      kinds.flatMap((kind) => (this.#hashes[kind] ? [[kind, this.#hashes[kind]]] : [])),
    );
  }

  async #trainedSasrec(seed: number, report: Report): Promise<{ model: SasrecRun; progress: RunProgress }> {
    const model = await SasrecRun.start(this.#set, seed, this.#sasrec, this.#engine);
    return { model, progress: await model.train(this.#sasrecFolder(seed), report) };
  }

  /** Made once per seed: it asks for all items at every place of the training sequences. */
  async #teacher(sasrec: SasrecRun, seed: number, report: Report): Promise<Teacher> {
    const folder = this.#sasrecFolder(seed);
    const teacher = emptyTeacher(trainingSequences(this.#set.sequences), TEACHER_TOP);
    const items = folder.readArray('teacher-items');
    const cumulative = folder.readArray('teacher-cumulative');
    // the folder is of this data; the weights that taught must be those that lie there
    const taughtBy = { sasrec: hashOfValues(this.#sasrecVectors(seed).data) };
    if (items && cumulative && isDeepStrictEqual(folder.read('teacher'), taughtBy))
      return { ...teacher, items: Int32Array.from(items), cumulative };
    const taught = await sasrec.teacher(TEACHER_TOP, report);
    // float32 holds whole numbers up to 2^24 exactly
    folder.writeArray('teacher-items', Float32Array.from(taught.items));
    folder.writeArray('teacher-cumulative', taught.cumulative);
    folder.write('teacher', taughtBy);
    return taught;
  }

  #sasrecFolder(seed: number): RunFolder {
    return new RunFolder(path.join(this.#out, `sasrec-seed${seed}`));
  }

  #sasrecVectors(seed: number): { data: Float32Array; dim: number } {
    const data = this.#sasrecFolder(seed).readArray(VECTORS)!;
    return { data, dim: data.length / this.#set.numItems };
  }

  #givenVectors(): { data: Float32Array; dim: number } {
    if (!this.#set.embeddings)
      throw new DataError(
        `${this.#set.name} has no embeddings (NAME_embeddings.f32), which this row's tokens are made of`,
      );
    return this.#set.embeddings;
  }
}

function summary(
  row: string,
  seed: number,
  parameters: number,
  progress: RunProgress,
  lists: Record<string, ListResult>,
): RunResult {
  const trainCpuSeconds = progress.epochs.reduce((sum, e) => sum + e.cpuSeconds, 0);
  return { row, seed, parameters, progress, trainCpuSeconds, lists };
}
