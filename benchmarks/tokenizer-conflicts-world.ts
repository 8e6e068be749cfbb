/**
 * The paper's table 5 on the simulator's evaluation world: how many product cards and short videos share a semantic ID, once
 * with the codes that the rule gives for 200,000 items and once with the paper's 4096 on each level.
 */
import { ItemVectors, readEvaluationPlan, WorldLog } from '@onemall/evaluate/world';
import { codesForCatalogue, type Vectors } from '@onemall/quantization';
import { load, versions } from './report/machine.ts';
import type { Benchmark } from './report/result.ts';
import { type ConflictRow, conflictRows, fsqShare, PAPER } from './tokenizer-conflicts/table.ts';

const PAPERS_CODES = [4_096, 4_096, 4_096] as const;

const range = (from: number, to: number): Int32Array =>
  Int32Array.from({ length: to - from }, (_, i) => from + i);

const benchmark: Benchmark = async (print) => {
  const plan = readEvaluationPlan();
  const log = new WorldLog(plan);
  const { catalogue } = log.world;
  const items = new ItemVectors(log);
  const scenarios: [string, Vectors][] = [
    ['product cards', items.rows(range(0, catalogue.numProducts))],
    ['short videos', items.rows(range(catalogue.numProducts, catalogue.size))],
  ];
  const tables: ConflictRow[] = [];
  for (const [scenario, vectors] of scenarios) {
    // The rule gives 4096, 4096, 16 here: the four tokenizers differ in their last level alone.
    const shared = { levels: [] };
    const training = { maxIterations: 8, maxVectorsPerCode: 256, shared };
    for (const codes of [codesForCatalogue(vectors.numVectors, 'fsq'), PAPERS_CODES])
      tables.push(...(await conflictRows({ name: scenario, vectors, codes, ...training }, print)));
  }
  const shares = Object.fromEntries(
    Array.from({ length: tables.length / 2 }, (_, i) => {
      const pair = tables.slice(2 * i, 2 * i + 2);
      return [`conflict, FSQ to k-means, ${pair[0]!.name}, ${pair[0]!.codes.join(' x ')}`, fsqShare(pair)];
    }),
  );
  return {
    name: 'tokenizer-conflicts-world',
    versions: { ...versions(), load: String(load()), plan: plan.hash },
    ours: { tables },
    peer: { name: "the paper's table 5, on its own catalogue and definition", ...PAPER },
    ratios: shares,
    bars: Object.entries(shares).map(([name, value]) => ({ name, value, bar: 1, ok: value <= 1 })),
  };
};
export default benchmark;
