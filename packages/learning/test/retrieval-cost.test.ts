import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { sidLayout } from '@onemall/features';
import { compileGradient } from '../src/engine/program.ts';
import { type Counted, CountingOps } from '../src/models/count-operations.ts';
import { type RetrievalSizes, retrievalPass } from '../src/models/onemall.ts';
import { type RetrievalPresetName, retrievalPresets } from '../src/models/presets.ts';
import { proof83, proof83Loss } from '../src/models/proof83.ts';
import { retrievalCost } from '../src/models/retrieval-cost.ts';
import type { Ops } from '../src/ops.ts';
import { differentiable, exact } from './op-cases.ts';
import { type Array64, ReferenceOps } from './reference-ops.ts';
import { randomSource } from './synthetic.ts';

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

  test('the costs of ADR 12 are these, and table 6 has its order where the ADR says so', () => {
    const adr = readFileSync(
      new URL('../../../docs/adr/0012-engines-behind-one-interface.md', import.meta.url),
      'utf8',
    );
    const rows = Array.from(adr.matchAll(/^\| (paper-\S+) \| ([\d.]+) B \| (.+) \|$/gm));
    assert.equal(rows.length, 4);
    for (const [, name, parameters, operations] of rows) {
      const cost = (queryFormer: boolean, absorb: boolean) =>
        retrievalCost(sizesOf(name as RetrievalPresetName, { absorb, ...(!queryFormer && { queries: 0 }) }));
      const [projected, projectedWhole] = [cost(true, false), cost(false, false)];
      const [absorbed, absorbedWhole] = [cost(true, true), cost(false, true)];
      assert.equal(projected.contextLength, 30);
      assert.equal(projectedWhole.contextLength, 1500);
      assert.equal((projected.parameters / 1e9).toFixed(2), parameters, name);
      const inOrder = [projected, projectedWhole, absorbed, absorbedWhole];
      assert.equal(
        inOrder.map(({ forwardFlops }) => `${(forwardFlops / 1e9).toFixed(1)} G`).join(' | '),
        operations,
        name,
      );
      // the paper's order needs four layers and projected keys and values; absorbed, it is the other way round
      const { layers } = retrievalPresets[name as RetrievalPresetName];
      assert.equal(projected.forwardFlops < projectedWhole.forwardFlops, layers >= 4, name);
      assert.ok(absorbedWhole.forwardFlops < absorbed.forwardFlops, name);
      // absorbed projections make both cheaper
      assert.ok(absorbed.forwardFlops < projected.forwardFlops, name);
      assert.ok(absorbedWhole.forwardFlops < projectedWhole.forwardFlops, name);
    }
  });

  test('a decoder of one layer has the operations that one counts by hand', () => {
    const small = sidLayout(['a'], { a: [10, 10, 10] });
    const tiny = {
      ...retrievalPresets.tiny,
      queries: 0,
      absorb: false,
      layers: 1,
      experts: 1,
      activeExperts: 1,
    };
    const preset = { ...tiny, dim: 4, heads: 2, ffnDim: 8 };
    // Two for a multiplication with its addition; 4 tokens over 3 x 2 events. Query and output: 4 x 4 x 4 each; keys and values:
    // 6 x 4 x 4 each; scores and their mix of the values: 4 x 6 x 4 each.
    const cross = 2 * (2 * 64 + 2 * 96 + 2 * 96);
    // Four projections of 4 x 4 x 4; scores and mix: 4 x 4 x 4 each.
    const self = 2 * (4 * 64 + 2 * 64);
    const feedForward = 2 * (2 * 4 * 4 * 8);
    const heads = 2 * (3 * 4 * 10);
    const { forwardFlops } = retrievalCost({ preset, layout: small, batchSize: 2, historyLength: 2 });
    assert.equal(forwardFlops, cross + self + feedForward + heads);
  });

  test('preset proof83 has the parameters of the peer', () => {
    const ops = new CountingOps();
    proof83Loss(ops, proof83);
    assert.equal(ops.parameterCount, 8_303_744);
  });
});

interface Both {
  reference: Array64;
  counted: Counted;
}

/** Every operation by the reference and by the counter, whose shapes must agree. @param compared names of those that were */
function sideBySide(reference: ReferenceOps, counting: CountingOps, compared: Set<string>): Ops<Both> {
  const of = (side: keyof Both, argument: unknown): unknown => {
    if (Array.isArray(argument)) return argument.map((each) => of(side, each));
    return typeof argument === 'object' && side in argument! ? (argument as Both)[side] : argument;
  };
  return new Proxy({} as Ops<Both>, {
    get:
      (_, name: string) =>
      (...given: unknown[]): unknown => {
        const result = (ops: object, side: keyof Both) =>
          Reflect.get(ops, name).apply(
            ops,
            given.map((argument) => of(side, argument)),
          );
        const expected = result(reference, 'reference') as Array64 | Array64[];
        if (name === 'shape') return expected;
        const actual = result(counting, 'counted') as Counted | Counted[];
        compared.add(name);
        const pair = (reference: Array64, counted: Counted): Both => {
          assert.deepEqual([...counted.shape], [...reference.shape], name);
          return { reference, counted };
        };
        return Array.isArray(expected)
          ? expected.map((each, i) => pair(each, (actual as Counted[])[i]!))
          : pair(expected, actual as Counted);
      },
  });
}

describe('the counter gives each operation the shape that the reference computes', () => {
  const compared = new Set<string>();
  const random = randomSource(5);
  const models: Record<string, <T>(ops: Ops<T>) => unknown> = {
    ...Object.fromEntries(Object.entries(differentiable).map(([name, { model }]) => [name, model])),
    'operations without a gradient': exact.build,
  };
  for (const [name, model] of Object.entries(models))
    test(name, () => {
      const counting = new CountingOps();
      model(counting);
      const weights = new Map(
        Array.from(counting.parameters, ([key, shape]) => [
          key,
          Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 0.3 + random.next()),
        ]),
      );
      const { x, ids } = exact;
      model(sideBySide(new ReferenceOps(weights, { x, ids }), new CountingOps(), compared));
    });

  test('and nothing is left out', () => {
    // no case has a buffer; `shape` is what the others are compared by
    const members = Object.getOwnPropertyNames(ReferenceOps.prototype);
    const left = members.filter((name) => !compared.has(name));
    assert.deepEqual(left.sort(), ['assign', 'buffer', 'constructor', 'shape']);
  });
});
