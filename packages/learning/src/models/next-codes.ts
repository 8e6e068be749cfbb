/**
 * Published decoding step by step: level 0 reads BOS, level 1 the first codes, level 2 the second codes of a beam. Keys and
 * values of a token leave the graph as a row and come back for the next level, so that every token is computed once, and each
 * visits its own experts only. Weights, names and results are those of `nextCode` (onemall.ts), the slow reference.
 */
import { linear } from '../layers/attention.ts';
import { unitLength } from '../layers/losses.ts';
import { type CachedToken, nextToken } from '../layers/next-token.ts';
import type { OnnxGraph } from '../onnx/graph.ts';
import type { Value } from '../onnx/graph-builder.ts';
import { routedExperts } from '../onnx/routed-experts.ts';
import { normal } from '../ops.ts';
import { contextRows, embedding, HEAD_GAIN, levelRows, type RetrievalSizes } from './onemall.ts';

/** Codes of a level in the scenario that has most: the columns of the level's log-probabilities. */
export const mostCodes = (numCodes: RetrievalSizes['layout']['numCodes'], level: number): number =>
  Math.max(...Object.values(numCodes).map((counts) => counts[level]!));

/** Values of a token in the cache: key and value of each layer. */
export const cacheWidth = ({ preset }: RetrievalSizes): number => 2 * preset.layers * preset.dim;

/**
 * Inputs: context [3 M, D] (`contextRows`); scenario int32 [1]; from level 1 on code int32 [width], the global row of each beam's newest code;
 * cache1 [1, 2 L D] of BOS; at level 2 also cache2 [width, 2 L D] of each beam's first code.
 * @returns logProbs [width, mostCodes] over the codes of the scenario from its first column on; cache [width, 2 L D] for the
 * next level, up to level 1; user [1, D] of length 1 at level 0, where the model contrasts users at BOS
 */
export function nextCodes(
  graph: OnnxGraph,
  sizes: RetrievalSizes,
  level: 0 | 1 | 2,
  width: number,
): Record<string, Value> {
  const { preset, layout } = sizes;
  const { dim, layers, experts, activeExperts, ffnDim } = preset;
  const context = graph.input('context', [contextRows(sizes), dim], 'float32');
  const scenario = graph.input('scenario', [1], 'int32');
  const token =
    level === 0
      ? embedding(graph, 'decoder.bos', 1, dim)
      : levelRows(graph, sizes, level - 1, graph.input('code', [width], 'int32'));
  const h = [
    token,
    graph.slice(embedding(graph, 'decoder.position', 4, dim), [level, 0], [1, dim]),
    graph.gather(embedding(graph, 'decoder.scenario', layout.scenarios.length, dim), scenario),
  ].reduce((a, b) => graph.add(a, b));

  const caches = [
    ...(level > 0 ? [graph.input('cache1', [1, cacheWidth(sizes)], 'float32')] : []),
    ...(level > 1 ? [graph.input('cache2', [width, cacheWidth(sizes)], 'float32')] : []),
  ];
  const earlier = Array.from({ length: layers }, (_, layer): CachedToken<Value>[] =>
    caches.map((cache) => {
      const part = (i: number): Value => graph.slice(cache, [0, i * dim], [cache.shape[0]!, dim]);
      return { key: part(2 * layer), value: part(2 * layer + 1) };
    }),
  );
  const { hidden, own } = nextToken(graph, 'decoder', h, context, earlier, preset, (name, x) =>
    routedExperts(graph, name, x, { experts, active: activeExperts, ffnDim }),
  );
  return {
    logProbs: scenarioLogProbs(graph, sizes, level, hidden, scenario),
    ...(level < 2 && {
      cache: graph.concat(
        own.flatMap(({ key, value }) => [key, value]),
        1,
      ),
    }),
    ...(level === 0 &&
      preset.contrastAt === 'bos' && {
        user: unitLength(graph, linear(graph, 'contrast.user', hidden, dim)),
      }),
  };
}

/** log p over the codes of one scenario: only its columns of the head are multiplied. */
function scenarioLogProbs(
  graph: OnnxGraph,
  { layout, preset }: RetrievalSizes,
  level: 0 | 1 | 2,
  hidden: Value,
  scenario: Value,
): Value {
  const { builder: g } = graph;
  const total = layout.rows[level];
  const columns = mostCodes(layout.numCodes, level);
  const counts = layout.scenarios.map((s) => layout.numCodes[s]![level]);
  const starts = layout.scenarios.map((s) => layout.offsets.get(s)![level]);
  const head = graph.parameter(
    `head.level${level + 1}`,
    [preset.dim, total],
    normal(HEAD_GAIN / Math.sqrt(preset.dim)),
  );
  // Room for the scenario that begins last, where it has fewer codes than the greatest.
  const padded = g.pad(head, [0, 0], [preset.dim, Math.max(...starts) + columns]);
  const start = g.rows(g.int64(starts), scenario);
  const own = g.emit(
    'Slice',
    [padded, start, g.add(start, g.int64([columns])), g.int64([1])],
    [preset.dim, columns],
    'float32',
  );
  const logits = g.matmul(hidden, own, false, false);
  if (counts.every((count) => count === columns)) return graph.logSoftmax(logits);
  const outside = counts.flatMap((count) =>
    Array.from({ length: columns }, (_, i) => (i < count ? 0 : -1e9)),
  );
  return graph.logSoftmax(g.add(logits, g.rows(graph.constant(outside, [counts.length, columns]), scenario)));
}
