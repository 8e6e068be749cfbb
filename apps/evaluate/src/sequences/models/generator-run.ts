/** Trains and ranks with a generator of semantic IDs: OneMall, or TIGER's form of it. */

import type { EngineOptions } from '@onemall/learning';
import {
  cacheWidth,
  contextLength,
  type ForwardPass,
  ModelTrainer,
  type RetrievalPreset,
  type SequenceModel,
  sequenceContext,
  sequenceDense,
  sequenceItems,
  sequencePass,
  sequenceStep,
  singleLayout,
} from '@onemall/learning/sequences';
import { seededSource } from '@onemall/quantization';
import type { RunFolder } from '../adapters/run-folder.ts';
import { BEAM_BUCKETS, LENGTH, rowsFor } from '../shapes.ts';
import {
  type Beam,
  type Candidates,
  extendBeam,
  itemsOf,
  logShares,
  startBeam,
} from '../stages/beam-search.ts';
import {
  type Bucket,
  bucketed,
  historyFeeds,
  lastPlace,
  type Question,
  trainingSequences,
  validationQuestions,
} from '../stages/leave-one-out.ts';
import { type PackedBatch, packEpoch } from '../stages/pack-sequences.ts';
import type { SequenceSet } from '../stages/parse-sequences.ts';
import { type Ranks, rankInList, rankMetrics, rankOfTarget } from '../stages/rank-metrics.ts';
import { SidTrie } from '../stages/sid-trie.ts';
import { drawTarget, type Teacher } from '../stages/soft-targets.ts';
import { type Report, type RunProgress, trainRun } from '../train-run.ts';
import type { GeneratorRecipe } from './recipes.ts';
import { type Tokens, unitVariance } from './tokens.ts';

/** What a generator is given besides the set. */
export interface GeneratorInputs {
  tokens: Tokens;
  /** Frozen item vectors for the history. */
  vectors?: { data: Float32Array; dim: number };
  teacher?: Teacher;
  engine?: EngineOptions;
}

/** Beams of one question and, with a dense head, its cosine to each candidate. */
export interface Ranked {
  question: Question;
  candidates: Candidates;
  /** cosine / temperature of each candidate. */
  dense?: Float64Array;
  /** float32 [D] of length 1. */
  user?: Float32Array;
}

/** What a beam may find. */
export interface BeamGround {
  trie: SidTrie;
  /** Of each item among the items of its SID. */
  logShare: Float64Array;
}

const VALIDATION_BEAM = 20;
const ITEM_ROWS = 1024;
const DENSE_ROWS = 128;

export class GeneratorRun {
  readonly trainer: ModelTrainer;
  readonly trie: SidTrie;
  readonly #set: SequenceSet;
  readonly #seed: number;
  readonly #recipe: GeneratorRecipe;
  readonly #inputs: GeneratorInputs;
  readonly #model: SequenceModel;
  readonly #training: Int32Array[];
  readonly logShare: Float64Array;
  readonly #logQ: Float32Array;
  readonly #vectors: Float32Array | undefined;
  readonly #buckets: readonly Bucket[];

  private constructor(
    trainer: ModelTrainer,
    model: SequenceModel,
    set: SequenceSet,
    seed: number,
    recipe: GeneratorRecipe,
    inputs: GeneratorInputs,
    buckets: readonly Bucket[],
  ) {
    this.trainer = trainer;
    this.#buckets = buckets;
    this.#model = model;
    this.#set = set;
    this.#seed = seed;
    this.#recipe = recipe;
    this.#inputs = inputs;
    this.#training = trainingSequences(set.sequences);
    this.trie = new SidTrie(inputs.tokens.codes, inputs.tokens.numCodes);
    // One more than was met, so that an item nobody has met keeps a chance.
    const counts = new Float64Array(set.numItems).fill(1);
    for (const sequence of this.#training) for (const item of sequence) counts[item - 1]!++;
    const total = counts.reduce((a, b) => a + b);
    this.logShare = logShares(this.trie, counts);
    this.#logQ = Float32Array.from(counts, (c) => Math.log(c / total));
    this.#vectors = inputs.vectors && unitVariance(inputs.vectors.data);
  }

  static async start(
    set: SequenceSet,
    seed: number,
    recipe: GeneratorRecipe,
    inputs: GeneratorInputs,
    buckets: readonly Bucket[] = BEAM_BUCKETS,
  ): Promise<GeneratorRun> {
    const model: SequenceModel = {
      preset: presetOf(recipe),
      layout: singleLayout(inputs.tokens.numCodes),
      history: recipe.history,
      encoderLayers: recipe.encoderLayers,
      maxLength: LENGTH,
      normalizer: recipe.normalizer,
      labelSmoothing: recipe.labelSmoothing,
      dropout: recipe.dropout,
      contrast: { at: recipe.contrastAt, weight: 0.5 },
      numItems: set.numItems,
      vectorDim: inputs.vectors?.dim ?? 0,
    };
    const forwards: Record<string, ForwardPass> = {};
    for (const { rows, length } of buckets) {
      forwards[`context${length}`] = (ops) => sequenceContext(ops, model, { rows, length });
      for (const width of new Set([VALIDATION_BEAM, recipe.beam]))
        for (let level = 0; level < model.layout.rows.length; level++)
          forwards[stepName(length, level, width)] = (ops) =>
            sequenceStep(ops, model, { rows, length, width: level === 0 ? 1 : width, level });
    }
    if (recipe.contrastAt === 'bos') {
      forwards.items = (ops) => sequenceItems(ops, model, ITEM_ROWS);
      forwards.dense = (ops) => sequenceDense(ops, model, DENSE_ROWS);
    }
    const trainer = await ModelTrainer.start({
      train: (ops) => sequencePass(ops, model, { rows: rowsFor(set, recipe.rows), length: LENGTH }),
      forwards,
      adamw: { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: recipe.weightDecay, maxGradNorm: 1 },
      seed,
      dropout: recipe.dropout,
      ...(inputs.engine && { engine: inputs.engine }),
    });
    return new GeneratorRun(trainer, model, set, seed, recipe, inputs, buckets);
  }

  train(folder: RunFolder, report: Report): Promise<RunProgress> {
    const { epochs, learningRate, positions, validateEvery } = this.#recipe;
    const rows = rowsFor(this.#set, this.#recipe.rows);
    const random = (epoch: number) => seededSource((Math.imul(this.#seed, 0x9e3779b1) ^ epoch) >>> 0);
    const epochOf = (epoch: number) =>
      packEpoch(this.#training, { rows, length: LENGTH }, random(epoch), positions);
    const totalSteps = epochOf(1).length * epochs;
    const asked = validationQuestions(this.#set.sequences);
    return trainRun(
      folder,
      {
        trainer: this.trainer,
        epochs,
        patience: epochs,
        validateEvery,
        batches: epochOf,
        feeds: (batch, epoch, index) => this.#feeds(batch, epoch, index),
        learningRate: (step) => learningRate * cosine(step, totalSteps),
        validate: async () => {
          const ranked = await this.search(asked, VALIDATION_BEAM);
          return rankMetrics(
            Int32Array.from(
              ranked,
              ({ question, candidates }) =>
                rankInList(candidates.items, question.target, question.history).out,
            ),
          );
        },
      },
      report,
    );
  }

  /** Beam search for each question, in any order, among the items of the set or those given. */
  async search(asked: readonly Question[], width: number, among: BeamGround = this): Promise<Ranked[]> {
    const items = this.#model.contrast.at === 'bos' ? await this.itemVectors() : undefined;
    const ranked: Ranked[] = [];
    for (const { bucket, questions: batch } of bucketed(asked, this.#buckets))
      ranked.push(...(await this.#searchBatch(bucket, batch, width, items, among)));
    return ranked;
  }

  /** f_item of all items, float32 [numItems, D]. */
  async itemVectors(): Promise<Float32Array> {
    const { numItems } = this.#set;
    const { dim } = this.#model.preset;
    const vectors = new Float32Array(numItems * dim);
    for (let from = 0; from < numItems; from += ITEM_ROWS) {
      const ids = Int32Array.from({ length: ITEM_ROWS }, (_, i) => Math.min(numItems, from + i + 1));
      const result = await this.trainer.forward('items', {
        'item.ids': ids,
        ...this.#codes('item.codes', ids),
      });
      const rows = Math.min(ITEM_ROWS, numItems - from);
      vectors.set((result.vectors as Float32Array).subarray(0, rows * dim), from * dim);
    }
    return vectors;
  }

  /** Ranks by the dense head alone, among all items. */
  async denseRanks(ranked: readonly Ranked[]): Promise<Ranks> {
    const { numItems } = this.#set;
    const { dim } = this.#model.preset;
    const items = await this.itemVectors();
    const ranks: Ranks = { in: new Int32Array(ranked.length), out: new Int32Array(ranked.length) };
    for (let from = 0; from < ranked.length; from += DENSE_ROWS) {
      const batch = ranked.slice(from, from + DENSE_ROWS);
      const user = new Float32Array(DENSE_ROWS * dim);
      batch.forEach((r, i) => {
        user.set(r.user!, i * dim);
      });
      const { scores } = await this.trainer.forward('dense', { user, items: items.slice() });
      batch.forEach(({ question: { target, history } }, i) => {
        const rank = rankOfTarget(scores as Float32Array, i * numItems, numItems, target, history);
        ranks.in[from + i] = rank.in;
        ranks.out[from + i] = rank.out;
      });
    }
    return ranks;
  }

  async #searchBatch(
    bucket: Bucket,
    batch: readonly Question[],
    width: number,
    items: Float32Array | undefined,
    { trie, logShare }: BeamGround,
  ): Promise<Ranked[]> {
    const { rows, length } = bucket;
    const { dim, temperature } = this.#model.preset;
    const history = historyFeeds(batch, bucket);
    const lasts = Int32Array.from({ length: rows }, (_, row) =>
      row < batch.length ? row * length + lastPlace(batch[row]!, bucket) : row * length,
    );
    const found = await this.trainer.forward(`context${length}`, {
      ...this.#historyFeeds(history.items!),
      positions: history.positions!,
      segments: history.segments!,
      lastPlace: lasts.slice(),
    });
    const memory = contextLength(this.#model, length);
    const readable = new Float32Array(rows * memory);
    for (let row = 0; row < rows; row++)
      readable.fill(1, row * memory, row * memory + (lasts[row]! - row * length) + 1);
    let beams: Beam[] = batch.map(startBeam);
    let users: Float32Array | undefined;
    // Keys and values of BOS, and of each code of every beam.
    let caches: Float32Array[] = [];
    for (let level = 0; level < trie.numLevels; level++) {
      const wide = level === 0 ? 1 : width;
      const code = new Int32Array(rows * wide);
      beams.forEach((beam, row) => {
        if (level > 0) code.set(beam.codes[level - 1]!, row * width);
      });
      const causal = this.#model.history === 'causal';
      const result = await this.trainer.forward(stepName(length, level, width), {
        context: (found.context as Float32Array).slice(),
        ...(causal && { readable: readable.slice() }),
        ...(causal && level === 0 && { start: found.start as Float32Array }),
        ...(level > 0 && { code }),
        ...Object.fromEntries(caches.map((cache, l) => [`cache${l}`, cache.slice()])),
      });
      users ??= result.user as Float32Array | undefined;
      const stride = wide * trie.numCodes[level]!;
      beams = beams.map((beam, row) =>
        extendBeam(beam, trie, {
          scores: result.scores as Float32Array,
          begin: row * stride,
          normalized: this.#model.normalizer === 'codes',
          width,
        }),
      );
      if (result.cache) caches = this.#moved([...caches, result.cache as Float32Array], beams, rows, width);
    }
    return batch.map((question, row) => {
      const candidates = itemsOf(beams[row]!, trie, logShare);
      if (!users || !items) return { question, candidates };
      const user = users.slice(row * dim, (row + 1) * dim);
      const dense = Float64Array.from(
        candidates.items,
        (item) => dot(user, items, (item - 1) * dim) / temperature,
      );
      return { question, candidates, dense, user };
    });
  }

  /** Caches of the codes follow the partial SIDs that were kept; that of BOS is the same for all. */
  #moved(
    [first, ...rest]: readonly Float32Array[],
    beams: readonly Beam[],
    rows: number,
    width: number,
  ): Float32Array[] {
    const size = cacheWidth(this.#model);
    return [
      first!,
      ...rest.map((cache) => {
        const moved = new Float32Array(rows * width * size);
        beams.forEach(({ from }, row) => {
          from.forEach((parent, b) => {
            const at = (row * width + parent) * size;
            moved.set(cache.subarray(at, at + size), (row * width + b) * size);
          });
        });
        return moved;
      }),
    ];
  }

  #feeds(batch: PackedBatch, epoch: number, index: number): Record<string, Float32Array | Int32Array> {
    const targets = this.#softTargets(batch, epoch, index);
    return {
      ...this.#historyFeeds(batch.items),
      positions: batch.positions,
      segments: batch.segments,
      weights: batch.weights,
      ...this.#codes('row.codes', targets),
      ...(this.#model.normalizer === 'trie' && this.trie.masks(targets)),
      ...(this.#model.contrast.at !== 'none' && {
        'item.ids': batch.targets,
        ...this.#codes('item.codes', batch.targets),
        'item.logQ': Float32Array.from(batch.targets, (item) => (item === 0 ? 0 : this.#logQ[item - 1]!)),
      }),
    };
  }

  /** Some targets become what the teacher would recommend there. */
  #softTargets(batch: PackedBatch, epoch: number, index: number): Int32Array {
    const { teacher } = this.#inputs;
    if (!teacher) return batch.targets;
    const random = seededSource((Math.imul(this.#seed, 0x85ebca6b) ^ (epoch * 4096 + index)) >>> 0);
    return batch.targets.map((target, i) =>
      target === 0 || random.next() >= this.#recipe.teacherShare
        ? target
        : drawTarget(teacher, teacher.begin[batch.users[i]!]! + batch.targetPlaces[i]!, random),
    );
  }

  #historyFeeds(items: Int32Array): Record<string, Float32Array | Int32Array> {
    const dim = this.#inputs.vectors?.dim;
    if (!this.#vectors || !dim) return this.#codes('history.codes', items);
    const vectors = new Float32Array(items.length * dim);
    items.forEach((item, i) => {
      if (item > 0) vectors.set(this.#vectors!.subarray((item - 1) * dim, item * dim), i * dim);
    });
    return { ...this.#codes('history.codes', items), 'history.vectors': vectors };
  }

  /** Codes of items per level; 0 where there is no item. */
  #codes(name: string, items: Int32Array): Record<string, Int32Array> {
    const { codes, numCodes } = this.#inputs.tokens;
    return Object.fromEntries(
      numCodes.map((_, level) => [
        `${name}${level + 1}`,
        items.map((item) => (item === 0 ? 0 : codes[(item - 1) * numCodes.length + level]!)),
      ]),
    );
  }
}

const stepName = (length: number, level: number, width: number): string =>
  `step${length}-${level}-${level === 0 ? 1 : width}`;

/** Linear over the first 100 steps, then half a cosine down to a hundredth. */
function cosine(step: number, total: number): number {
  const t = step + 1;
  return Math.min(1, t / 100) * (0.5 + 0.5 * Math.cos((Math.PI * t) / total)) + 0.01;
}

function dot(a: Float32Array, b: Float32Array, at: number): number {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d]! * b[at + d]!;
  return sum;
}

function presetOf(recipe: GeneratorRecipe): RetrievalPreset {
  const { dim, heads, layers, experts, learningRate } = recipe;
  return {
    name: 'sequences',
    dim,
    layers,
    heads,
    ffnDim: recipe.ffn * dim,
    experts,
    activeExperts: experts === 1 ? 1 : 2,
    capacityFactor: 1.25,
    balanceRate: 1e-3,
    residual: 'sublayer',
    embeddingGain: Math.sqrt(dim),
    queries: 10,
    queryBlocks: 1,
    itemQueries: 1,
    itemHashRows: 1,
    contrastAt: 'bos',
    temperature: 0.07,
    historyLength: LENGTH,
    batchSize: recipe.rows * LENGTH,
    learningRate,
  };
}
