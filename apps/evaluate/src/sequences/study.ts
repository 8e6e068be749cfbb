/**
 * The runs of a study and what they need of each other.
 *   waits for: SASRec of the same seed, where a generator takes its vectors or its advice
 *   leaves: one folder per run with checkpoints and result.json; a run that has one is not repeated
 */
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { RunFolder } from './adapters/run-folder.ts';
import { GeneratorRun } from './models/generator-run.ts';
import type { GeneratorRecipe } from './models/recipes.ts';
import { SASREC, type SasrecRecipe, SasrecRun } from './models/sasrec-run.ts';
import { makeTokens, textVectors } from './models/tokens.ts';
import { generatorLists, judge, type ListResult } from './rank-lists.ts';
import { type Question, questions, validationQuestions } from './stages/leave-one-out.ts';
import { DataError, type SequenceSet } from './stages/parse-sequences.ts';
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

export class Study {
  readonly #set: SequenceSet;
  readonly #out: string;
  readonly #report: Report;

  constructor(set: SequenceSet, out: string, report: Report) {
    this.#set = set;
    this.#out = out;
    this.#report = report;
  }

  async sasrec(seed: number): Promise<RunResult> {
    const { folder, report, known } = this.#open('sasrec', seed, SASREC);
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

  async generator(row: string, recipe: GeneratorRecipe, seed: number): Promise<RunResult> {
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
    const tokens = await makeTokens(source, recipe.tokenForm, seed);
    const teacher = recipe.teacherShare > 0 ? await this.#teacher(seed, report) : undefined;
    const run = await GeneratorRun.start(this.#set, seed, recipe, {
      tokens,
      ...(recipe.frozenVectors && { vectors: vectors! }),
      ...(teacher && { teacher }),
    });
    try {
      const progress = await run.train(folder, report);
      report(`ranks by beams of ${recipe.beam}`, true);
      const lists = await generatorLists(run, this.#set, recipe.beam);
      const result = summary(row, seed, run.trainer.parameters, progress, lists);
      const { numCodes, conflict, exclusive } = tokens;
      result.tokens = { numCodes, conflict, exclusive };
      folder.write('result', result);
      return result;
    } finally {
      await run.trainer.close();
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
    const settings = { set: { name, users: users.length, numItems, numInteractions }, recipe };
    const known = folder.read<typeof settings>('settings');
    if (known === undefined) folder.write('settings', settings);
    else if (!isDeepStrictEqual(known, settings))
      throw new SettingsError(
        `${folder.folder} holds a run with other settings or of other data (settings.json): remove it, or name another folder with --out`,
      );
  }

  async #trainedSasrec(seed: number, report: Report): Promise<{ model: SasrecRun; progress: RunProgress }> {
    const folder = new RunFolder(path.join(this.#out, `sasrec-seed${seed}`));
    const model = await SasrecRun.start(this.#set, seed);
    return { model, progress: await model.train(folder, report) };
  }

  async #teacher(seed: number, report: Report) {
    const { model } = await this.#trainedSasrec(seed, report);
    try {
      return await model.teacher(TEACHER_TOP, report);
    } finally {
      await model.trainer.close();
    }
  }

  #sasrecVectors(seed: number): { data: Float32Array; dim: number } {
    const data = new RunFolder(path.join(this.#out, `sasrec-seed${seed}`)).readArray(VECTORS)!;
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
