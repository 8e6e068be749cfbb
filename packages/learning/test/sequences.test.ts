import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Arrays } from '../src/engine/ort-sessions.ts';
import { DropoutMasks } from '../src/layers/dropout.ts';
import { type ForwardPass, ModelTrainer } from '../src/model-trainer.ts';
import {
  type SequenceModel,
  sequenceContext,
  sequencePass,
  sequenceStep,
  singleLayout,
} from '../src/models/onemall-sequences.ts';
import { type SasrecSizes, sasrecPass } from '../src/models/sasrec.ts';
import type { EngineName } from '../src/trainer-ports.ts';
import { checkGradients } from './gradients.ts';
import { randomSource } from './synthetic.ts';
import { relative } from './tensorflow-cases.ts';

const shape = { rows: 2, length: 5 };
const n = shape.rows * shape.length;
const numCodes = [4, 3, 5];
const preset = {
  name: 'test',
  dim: 4,
  layers: 1,
  heads: 2,
  ffnDim: 6,
  experts: 1,
  activeExperts: 1,
  capacityFactor: 1,
  balanceRate: 0,
  residual: 'sublayer',
  embeddingGain: 2,
  queries: 2,
  queryBlocks: 1,
  itemQueries: 1,
  itemHashRows: 1,
  contrastAt: 'bos',
  temperature: 0.5,
  historyLength: 5,
  batchSize: n,
  learningRate: 1e-2,
} as const;
const model: SequenceModel = {
  preset,
  layout: singleLayout(numCodes),
  history: 'causal',
  encoderLayers: 1,
  maxLength: 5,
  normalizer: 'trie',
  labelSmoothing: 0.1,
  dropout: 0,
  contrast: { at: 'bos', weight: 0.5 },
  numItems: 6,
  vectorDim: 3,
};

/** Two segments and some padding to a row; codes and masks in which the target's own code is always allowed. */
function feedsOf({ normalizer, contrast, vectorDim }: SequenceModel): Arrays {
  const random = randomSource(11);
  const below = (most: number) => Int32Array.from({ length: n }, () => Math.floor(random.next() * most));
  const segments = Int32Array.from({ length: n }, (_, i) => [0, 0, 1, 1, -1][i % 5]!);
  const weights = Float32Array.from(segments, (s) => (s < 0 ? 0 : 1 / 8));
  const feeds: Arrays = {
    positions: Int32Array.from({ length: n }, (_, i) => [0, 1, 0, 1, 0][i % 5]!),
    segments,
    weights,
  };
  numCodes.forEach((count, l) => {
    feeds[`history.codes${l + 1}`] = below(count);
    const codes = below(count);
    feeds[`row.codes${l + 1}`] = codes;
    if (normalizer === 'trie') {
      const mask = Float32Array.from({ length: n * count }, () => (random.next() < 0.5 ? 1 : 0));
      codes.forEach((code, row) => {
        mask[row * count + code] = 1;
      });
      feeds[`mask.level${l + 1}`] = mask;
    }
    if (contrast.at !== 'none') feeds[`item.codes${l + 1}`] = below(count);
  });
  if (vectorDim > 0)
    feeds['history.vectors'] = Float32Array.from({ length: n * vectorDim }, () => random.next() - 0.5);
  if (contrast.at !== 'none') {
    feeds['item.ids'] = Int32Array.from(below(6), (i) => i + 1);
    feeds['item.logQ'] = Float32Array.from({ length: n }, () => -1 - random.next());
  }
  return feeds;
}

describe('gradients of the sequence model agree with finite differences of the float64 reference', () => {
  const variants: Record<string, Partial<SequenceModel>> = {
    'softmax over the children that exist, contrast at BOS, frozen vectors': {},
    'softmax over all codes, no contrast': { normalizer: 'codes', contrast: { at: 'none', weight: 0 } },
    'no label smoothing, contrast after the last code': {
      labelSmoothing: 0,
      contrast: { at: 'last', weight: 0.5 },
      vectorDim: 0,
    },
    'Query-Former at every position': { history: 'query-former' },
  };
  for (const [name, change] of Object.entries(variants))
    test(name, async () => {
      const variant = { ...model, ...change };
      const checked = await checkGradients((ops) => sequencePass(ops, variant, shape).loss, {
        feeds: feedsOf(variant),
        perParameter: 2,
      });
      assert.ok(checked > 40);
    });
});

test('SASRec gradients agree with finite differences, drawn targets are no negatives', async () => {
  const sizes: SasrecSizes = {
    numItems: 7,
    dim: 8,
    layers: 1,
    heads: 2,
    ffnDim: 12,
    dropout: 0,
    maxLength: 5,
  };
  const { positions, segments, weights } = feedsOf(model);
  const feeds: Arrays = {
    positions: positions!,
    segments: segments!,
    weights: weights!,
    items: Int32Array.from({ length: n }, (_, i) => 1 + ((i * 3) % 7)),
    targets: Int32Array.from({ length: n }, (_, i) => 1 + ((i * 3 + 3) % 7)),
    negatives: Int32Array.of(1, 4, 4),
  };
  await checkGradients((ops) => sasrecPass(ops, sizes, { ...shape, negatives: 3 }).loss, {
    feeds,
    perParameter: 6,
  });
});

test('engines train it alike, masks of dropout included', async (t) => {
  const train = async (name: EngineName): Promise<number[]> => {
    const variant: SequenceModel = { ...model, dropout: 0.2 };
    const trainer = await ModelTrainer.start({
      train: (ops) => sequencePass(ops, variant, shape),
      forwards: { context: (ops) => sequenceContext(ops, variant, shape) },
      adamw: { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
      seed: 1,
      dropout: 0.2,
      engine: { name },
    });
    t.after(() => trainer.close());
    const losses: number[] = [];
    for (let step = 0; step < 4; step++) losses.push((await trainer.train(feedsOf(variant), 1e-2)).loss![0]!);
    const feeds: Arrays = { ...feedsOf(variant), lastPlace: Int32Array.of(3, 2) };
    const { context } = await trainer.forward('context', feeds);
    return [...losses, ...context!];
  };
  const [onnx, tensorflow] = [await train('cpu'), await train('wasm')];
  assert.ok(onnx[3]! < onnx[0]!);
  assert.ok(relative(onnx, tensorflow, 1e-3) < 1e-4);
});

test('what comes later in a row, or lies in another segment, changes nothing before it', async () => {
  const trainer = await ModelTrainer.start({
    train: (ops) => sequencePass(ops, model, shape),
    forwards: {},
    adamw: { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    seed: 1,
    dropout: 0,
  });
  const onlyFirst = (change: (feeds: Arrays) => void): Arrays => {
    const feeds = feedsOf({ ...model, contrast: { at: 'bos', weight: 0.5 } });
    feeds.weights!.fill(0);
    feeds.weights![1] = 1;
    change(feeds);
    return feeds;
  };
  const levelsOf = async (feeds: Arrays) => {
    const metrics = await trainer.train(feeds, 0);
    return [1, 2, 3].map((l) => metrics[`level${l}`]![0]!);
  };
  const whole = await levelsOf(onlyFirst(() => {}));
  const otherLater = await levelsOf(
    onlyFirst((feeds) => {
      for (const i of [2, 3, 4]) feeds['history.codes1']![i] = (feeds['history.codes1']![i]! + 1) % 4;
    }),
  );
  const otherBefore = await levelsOf(
    onlyFirst((feeds) => {
      feeds['history.codes1']![0] = (feeds['history.codes1']![0]! + 1) % 4;
    }),
  );
  await trainer.close();
  assert.deepEqual(otherLater, whole);
  assert.notDeepEqual(otherBefore, whole);
});

for (const history of ['causal', 'query-former'] as const)
  test(`steps with a cache score the target as training does (${history})`, async () => {
    const plain: SequenceModel = {
      ...model,
      history,
      normalizer: 'codes',
      labelSmoothing: 0,
      contrast: { at: 'none', weight: 0 },
    };
    const width = 2;
    const alone = { rows: 2, length: 5 };
    const steps = [0, 1, 2].map((level) => {
      const at = { ...alone, width: level === 0 ? 1 : width, level };
      return [`step${level}`, ((ops) => sequenceStep(ops, plain, at)) satisfies ForwardPass] as const;
    });
    const trainer = await ModelTrainer.start({
      train: (ops) => sequencePass(ops, plain, shape),
      forwards: {
        ...Object.fromEntries(steps),
        context: (ops) => sequenceContext(ops, plain, alone),
      },
      adamw: { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
      seed: 1,
      dropout: 0,
    });
    // Each row is one segment here; its third element is asked, the rest comes later.
    const base = feedsOf(plain);
    base.segments!.fill(0);
    base.positions = Int32Array.from({ length: n }, (_, i) => i % 5);
    const codes = [1, 2, 3].map((l) => base[`row.codes${l}`]! as Int32Array);
    const expected = await Promise.all(
      [2, 7].map(async (place) => {
        const feeds = Object.fromEntries(
          Object.entries(base).map(([name, values]) => [name, values.slice()]),
        );
        feeds.weights!.fill(0);
        feeds.weights![place] = 1;
        const metrics = await trainer.train(feeds, 0);
        return [1, 2, 3].map((l) => -metrics[`level${l}`]![0]!);
      }),
    );
    const contextFeeds = Object.fromEntries(
      Object.entries(base).filter(([name]) => name.startsWith('history.')),
    );
    const found = await trainer.forward('context', {
      ...contextFeeds,
      positions: base.positions.slice(),
      segments: base.segments!.slice(),
      lastPlace: Int32Array.of(2, 7),
    });
    const own = (place: number, level: number): number => codes[level]![place]!;
    const caches: Float32Array[] = [];
    for (const level of [0, 1, 2]) {
      const wide = level === 0 ? 1 : width;
      const result = await trainer.forward(`step${level}`, {
        context: (found.context as Float32Array).slice(),
        ...(history === 'causal' && { readable: Float32Array.of(1, 1, 1, 0, 0, 1, 1, 1, 0, 0) }),
        ...(history === 'causal' && level === 0 && { start: (found.start as Float32Array).slice() }),
        // the target's code, and beside it another one that must not matter
        ...(level > 0 && {
          code: Int32Array.from([2, 7], (place) => own(place, level - 1)).reduce((all, code, row) => {
            all[row * width + 1] = code;
            return all;
          }, new Int32Array(4)),
        }),
        ...Object.fromEntries(caches.map((cache, l) => [`cache${l}`, cache.slice()])),
      });
      [2, 7].forEach((place, row) => {
        const at = (row * wide + wide - 1) * numCodes[level]! + own(place, level);
        const difference = Math.abs(result.scores![at]! - expected[row]![level]!);
        assert.ok(difference < 1e-5, `level ${level + 1}, row ${row}: off by ${difference}`);
      });
      if (result.cache) caches.push(result.cache as Float32Array);
    }
    await trainer.close();
  });

test('masks of dropout keep the share and the mean that they should', () => {
  const random = randomSource(3);
  const masks = new DropoutMasks(0.25, 1000, () => random.next());
  const mask = masks.draw(100_000, () => random.next());
  const kept = mask.filter((v) => v !== 0);
  assert.ok(Math.abs(kept.length / mask.length - 0.75) < 0.01);
  assert.ok(kept.every((v) => v === Math.fround(1 / 0.75)));
});
