/** Trains and ranks with SASRec; leaves its item vectors and what it would recommend as a teacher. */

import type { EngineOptions } from '@onemall/learning';
import {
  type ForwardPass,
  ModelTrainer,
  SASREC_ITEMS,
  type SasrecSizes,
  sasrecHidden,
  sasrecPass,
  sasrecScores,
} from '@onemall/learning/sequences';
import { seededSource } from '@onemall/quantization';
import type { RunFolder } from '../adapters/run-folder.ts';
import { BUCKETS, LENGTH, rowsFor } from '../shapes.ts';
import type { Advice } from '../stages/beam-search.ts';
import {
  bucketed,
  historyFeeds,
  lastPlace,
  type Question,
  trainingSequences,
  validationQuestions,
} from '../stages/leave-one-out.ts';
import { packEpoch } from '../stages/pack-sequences.ts';
import type { SequenceSet } from '../stages/parse-sequences.ts';
import { type Ranks, rankMetrics, rankOfTarget } from '../stages/rank-metrics.ts';
import { emptyTeacher, type Teacher, teach, topIndices } from '../stages/soft-targets.ts';
import { type Report, type RunProgress, trainRun } from '../train-run.ts';

export interface SasrecRecipe {
  dim: number;
  layers: number;
  heads: number;
  dropout: number;
  negatives: number;
  learningRate: number;
  /** Rows of LENGTH positions in a batch. */
  rows: number;
  epochs: number;
  patience: number;
}

/** ../docs/results.md says where these come from. */
export const SASREC: SasrecRecipe = {
  dim: 64,
  layers: 2,
  heads: 2,
  dropout: 0.5,
  negatives: 1024,
  learningRate: 1e-3,
  rows: 30,
  epochs: 60,
  patience: 5,
};
/** Hidden states that are scored against all items at a time. */
const SCORED = 128;

export class SasrecRun {
  readonly trainer: ModelTrainer;
  readonly #set: SequenceSet;
  readonly #seed: number;
  readonly #recipe: SasrecRecipe;
  readonly #dim: number;

  private constructor(trainer: ModelTrainer, set: SequenceSet, seed: number, recipe: SasrecRecipe) {
    this.trainer = trainer;
    this.#set = set;
    this.#seed = seed;
    this.#recipe = recipe;
    this.#dim = recipe.dim;
  }

  static async start(
    set: SequenceSet,
    seed: number,
    recipe: SasrecRecipe = SASREC,
    engine: EngineOptions = {},
  ): Promise<SasrecRun> {
    const { dim, layers, heads, dropout, negatives } = recipe;
    const rows = rowsFor(set, recipe.rows);
    const sizes: SasrecSizes = {
      numItems: set.numItems,
      dim,
      layers,
      heads,
      ffnDim: 4 * dim,
      dropout,
      maxLength: LENGTH,
    };
    const trainer = await ModelTrainer.start({
      train: (ops) => sasrecPass(ops, sizes, { rows, length: LENGTH, negatives }),
      forwards: {
        packed: (ops) => sasrecHidden(ops, sizes, rows, LENGTH),
        scores: (ops) => sasrecScores(ops, sizes, SCORED, false),
        probabilities: (ops) => sasrecScores(ops, sizes, SCORED, true),
        ...Object.fromEntries(
          BUCKETS.map(({ rows, length }) => [
            `hidden${length}`,
            ((ops) => sasrecHidden(ops, sizes, rows, length)) satisfies ForwardPass,
          ]),
        ),
      },
      adamw: { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1e6 },
      seed,
      dropout,
      engine,
    });
    return new SasrecRun(trainer, set, seed, recipe);
  }

  get numItems(): number {
    return this.#set.numItems;
  }

  /** Replaces the first rows of the items; a checkpoint that `train` takes up replaces them again. @param rows float32 [numItems, dim] */
  async beginWithItems(rows: Float32Array): Promise<void> {
    const state = await this.trainer.state();
    state.tensors.get(SASREC_ITEMS)!.set(rows, this.#dim);
    await this.trainer.restore(state);
  }

  /** Hidden state [dim] after a history, oldest first. */
  async hiddenAfter(history: Int32Array): Promise<Float32Array> {
    const [only] = await this.#hidden([{ user: 0, history, target: 0 }]);
    return only!.hidden;
  }

  /** @param validateEvery epochs between validations, each of which scores every item for each question */
  train(folder: RunFolder, report: Report, validateEvery = 2): Promise<RunProgress> {
    const { sequences, numItems } = this.#set;
    const training = trainingSequences(sequences);
    const { epochs, patience, learningRate, negatives } = this.#recipe;
    const rows = rowsFor(this.#set, this.#recipe.rows);
    const asked = validationQuestions(sequences);
    return trainRun(
      folder,
      {
        trainer: this.trainer,
        epochs,
        patience,
        validateEvery,
        batches: (epoch) => packEpoch(training, { rows, length: LENGTH }, this.#random(epoch)),
        feeds: (batch, epoch, index) => {
          const random = this.#random(epoch, index);
          return {
            items: batch.items,
            positions: batch.positions,
            segments: batch.segments,
            targets: batch.targets,
            weights: batch.weights,
            negatives: Int32Array.from({ length: negatives }, () => 1 + Math.floor(random.next() * numItems)),
          };
        },
        learningRate: () => learningRate,
        validate: async () => rankMetrics((await this.rank(asked)).out),
      },
      report,
    );
  }

  async rank(asked: readonly Question[]): Promise<Ranks> {
    const ranks: Ranks = { in: new Int32Array(asked.length), out: new Int32Array(asked.length) };
    const places = new Map(asked.map((question, i) => [question, i]));
    const { numItems } = this.#set;
    for (const { batch, hidden } of await this.#hidden(asked)) {
      for (let from = 0; from < batch.length; from += SCORED) {
        const scores = await this.#scores(hidden, from);
        batch.slice(from, from + SCORED).forEach((question, i) => {
          const rank = rankOfTarget(scores, i * numItems, numItems, question.target, question.history);
          ranks.in[places.get(question)!] = rank.in;
          ranks.out[places.get(question)!] = rank.out;
        });
      }
    }
    return ranks;
  }

  /** For each question the best items, and log p of them and of the items named. */
  async advise(asked: readonly { question: Question; items: Int32Array }[], top: number): Promise<Advice[]> {
    const byQuestion = new Map<Question, Advice>();
    const named = new Map(asked.map(({ question, items }) => [question, items]));
    const { numItems } = this.#set;
    for (const { batch, hidden } of await this.#hidden(asked.map((a) => a.question)))
      for (let from = 0; from < batch.length; from += SCORED) {
        const probabilities = await this.#scores(hidden, from, 'probabilities');
        batch.slice(from, from + SCORED).forEach((question, i) => {
          const begin = i * numItems;
          const best = topIndices(probabilities, begin, numItems, top).map((index) => index + 1);
          const logProbs = new Map<number, number>();
          for (const item of [...best, ...named.get(question)!])
            logProbs.set(item, Math.log(Math.max(probabilities[begin + item - 1]!, 1e-30)));
          byQuestion.set(question, { best, logProbs });
        });
      }
    return asked.map(({ question }) => byQuestion.get(question)!);
  }

  /** float32 [numItems, dim] */
  async itemVectors(): Promise<Float32Array> {
    const { tensors } = await this.trainer.state();
    return tensors.get(SASREC_ITEMS)!.slice(this.#dim);
  }

  /** The best items at every place of the training sequences that a batch can hold. */
  async teacher(top: number, report: Report): Promise<Teacher> {
    const training = trainingSequences(this.#set.sequences);
    const teacher = emptyTeacher(training, top);
    const { numItems } = this.#set;
    const batches = packEpoch(
      training,
      { rows: rowsFor(this.#set, this.#recipe.rows), length: LENGTH },
      this.#random(0),
    );
    for (const [index, batch] of batches.entries()) {
      report(`teaches, ${index + 1} of ${batches.length}`, true);
      const { items, positions, segments, users, targetPlaces } = batch;
      const { hidden } = await this.trainer.forward('packed', { items, positions, segments });
      for (let from = 0; from < users.length; from += SCORED) {
        const probabilities = await this.#scores(hidden as Float32Array, from, 'probabilities');
        for (let i = from; i < Math.min(users.length, from + SCORED); i++)
          if (users[i]! >= 0)
            teach(
              teacher,
              teacher.begin[users[i]!]! + targetPlaces[i]!,
              probabilities,
              (i - from) * numItems,
              numItems,
            );
      }
    }
    return teacher;
  }

  /** Hidden states [questions, dim] after each history. */
  async #hidden(asked: readonly Question[]): Promise<{ batch: Question[]; hidden: Float32Array }[]> {
    const found: { batch: Question[]; hidden: Float32Array }[] = [];
    for (const { bucket, questions: batch } of bucketed(asked, BUCKETS)) {
      const result = await this.trainer.forward(`hidden${bucket.length}`, historyFeeds(batch, bucket));
      const all = result.hidden as Float32Array;
      const hidden = new Float32Array(batch.length * this.#dim);
      batch.forEach((question, row) => {
        const at = (row * bucket.length + lastPlace(question, bucket)) * this.#dim;
        hidden.set(all.subarray(at, at + this.#dim), row * this.#dim);
      });
      found.push({ batch, hidden });
    }
    return found;
  }

  /** What all items score after up to SCORED hidden states from the one given. */
  async #scores(
    hidden: Float32Array,
    from: number,
    kind: 'scores' | 'probabilities' = 'scores',
  ): Promise<Float32Array> {
    const feed = new Float32Array(SCORED * this.#dim);
    feed.set(hidden.subarray(from * this.#dim, (from + SCORED) * this.#dim));
    return (await this.trainer.forward(kind, { hidden: feed })).scores as Float32Array;
  }

  #random(epoch: number, index = 0) {
    return seededSource((Math.imul(this.#seed, 0x9e3779b1) ^ Math.imul(epoch, 0x85ebca6b) ^ index) >>> 0);
  }
}
