import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { sidLayout } from '@onemall/features';
import { compileGradient } from '../src/engine/program.ts';
import { CountingOps } from '../src/models/count-operations.ts';
import { type RetrievalSizes, retrievalPass } from '../src/models/onemall.ts';
import { type RetrievalPresetName, retrievalPresets } from '../src/models/presets.ts';
import { proof83, proof83Loss } from '../src/models/proof83.ts';
import { retrievalCost } from '../src/models/retrieval-cost.ts';
import { ReferenceOps } from './reference-ops.ts';

const layout = sidLayout(['product_card', 'short_video', 'live_stream'], {
  product_card: [4096, 4096, 4096],
  short_video: [4096, 4096, 4096],
  live_stream: [4096, 4096, 4096],
});
const sizesOf = (
  name: RetrievalPresetName,
  change: { absorb?: boolean; queries?: number } = {},
): RetrievalSizes => {
  const preset = { ...retrievalPresets[name], ...change };
  return { preset, layout, batchSize: 8, historyLength: preset.historyLength };
};

describe('cost of the presets', () => {
  for (const name of Object.keys(retrievalPresets) as RetrievalPresetName[])
    test(`${name} compiles to a training graph with the counted parameters`, () => {
      const sizes = sizesOf(name);
      const { gradient, graph } = compileGradient((ops) => retrievalPass(ops, sizes));
      const compiled = [...graph.parameters.values()].reduce(
        (n, { shape }) => n + shape.reduce((a, b) => a * b, 1),
        0,
      );
      assert.equal(retrievalCost(sizes).parameters, compiled);
      assert.ok(gradient.nodeCount > 500);
    });

  test('the decoders of the paper have the sizes that name its table 1', () => {
    const billions = (name: RetrievalPresetName) => {
      const cost = retrievalCost(sizesOf(name));
      return [cost.decoderParameters / 1e9, cost.activeDecoderParameters / 1e9] as const;
    };
    // Two attentions of 4 D^2 and experts of 2 D F each; the names round up and may count more than the decoder.
    assert.deepEqual(
      billions('paper-0.05b').map((b) => b.toFixed(3)),
      ['0.034', '0.034'],
    );
    assert.deepEqual(
      billions('paper-0.1b').map((b) => b.toFixed(3)),
      ['0.067', '0.067'],
    );
    assert.deepEqual(
      billions('paper-0.5b-a0.1b').map((b) => b.toFixed(3)),
      ['0.436', '0.101'],
    );
    assert.deepEqual(
      billions('paper-1.3b-a0.1b').map((b) => b.toFixed(3)),
      ['0.839', '0.101'],
    );
  });

  test('a Query-Former costs less than reading every event, in the order of table 6', () => {
    const cost = (queryFormer: boolean, absorb: boolean) =>
      retrievalCost(sizesOf('paper-0.5b-a0.1b', { absorb, ...(!queryFormer && { queries: 0 }) }));
    const [compressed, whole] = [cost(true, false), cost(false, false)];
    assert.equal(whole.contextLength, 1500);
    assert.equal(compressed.contextLength, 30);
    assert.ok(compressed.forwardFlops < whole.forwardFlops);
    // Absorbed projections make both cheaper.
    assert.ok(cost(true, true).forwardFlops < compressed.forwardFlops);
    assert.ok(cost(false, true).forwardFlops < whole.forwardFlops);
  });

  test('preset proof83 has the parameters of the peer', () => {
    const ops = new CountingOps();
    proof83Loss(ops, proof83);
    assert.equal(ops.parameterCount, 8_303_744);
  });
});

test('the counter gives each operation the shape that the reference computes', () => {
  const counting = new CountingOps();
  const members = Object.getOwnPropertyNames(ReferenceOps.prototype).filter((name) => name !== 'constructor');
  for (const name of members) assert.equal(typeof Reflect.get(counting, name), 'function', name);
});
