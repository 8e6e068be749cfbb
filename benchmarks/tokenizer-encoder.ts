/**
 * The item encoder on Amazon Beauty: recall of held-back item pairs before and after its projector is trained on the
 * others. Further frozen vectors to compare with are read from NAME.f32 files in ONEMALL_BENCH_VECTORS.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { project, trainProjector } from '@onemall/learning/projector';
import { capPairs, type ItemPair, seededSource, swingPairs, type Vectors } from '@onemall/quantization';
import { hashFraction } from '@onemall/service-kit';
import { NgramEncoder, pairRecall } from '@onemall/text-encoder';
import { beautyFolder } from './report/beauty.ts';
import { load, measure, versions } from './report/machine.ts';
import type { Benchmark } from './report/result.ts';

const DIM = 512;
const HELD_OUT_USERS = 0.2;
const MAX_QUERIES = 2_000;
const STEPS = 600;
const KS = [10, 50];

/** Swing pairs of one part of the users: int32 [N, 2]. */
function pairsOf(baskets: readonly Int32Array[], numItems: number): ItemPair[] {
  return capPairs(swingPairs(baskets, numItems), 40);
}
const flat = (pairs: readonly ItemPair[]): Int32Array => Int32Array.from(pairs.flatMap(({ a, b }) => [a, b]));

function readBeauty(folder: string): { texts: string[]; train: Int32Array; heldOut: Int32Array } {
  const items = Object.values(
    JSON.parse(readFileSync(`${folder}Beauty_item_text.json`, 'utf8')) as Record<
      string,
      { attributes: string[] }
    >,
  );
  const baskets: [Int32Array[], Int32Array[]] = [[], []];
  for (const line of readFileSync(`${folder}Beauty.txt`, 'utf8').trim().split('\n')) {
    const [user, ...bought] = line.split(' ');
    const part = hashFraction(`held-out:${user}`) < HELD_OUT_USERS ? 1 : 0;
    baskets[part].push(Int32Array.from(new Set(bought.map((item) => Number(item) - 1))));
  }
  const train = pairsOf(baskets[0], items.length);
  const known = new Set(train.map(({ a, b }) => `${a},${b}`));
  const unseen = pairsOf(baskets[1], items.length).filter(({ a, b }) => !known.has(`${a},${b}`));
  return {
    texts: items.map(({ attributes }) => attributes.join(' ')),
    train: flat(train),
    heldOut: flat(unseen.slice(0, MAX_QUERIES)),
  };
}

function otherVectors(numItems: number): [string, Vectors][] {
  const folder = process.argv[3];
  if (!folder || !existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => file.endsWith('.f32'))
    .map((file) => {
      const bytes = readFileSync(path.join(folder, file));
      const data = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
      return [file.slice(0, -4), { data, numVectors: numItems, dim: data.length / numItems }];
    });
}

const benchmark: Benchmark = async (print) => {
  const folder = beautyFolder();
  if (!folder)
    return {
      name: 'tokenizer-encoder',
      versions: versions(),
      ours: {},
      peer: null,
      peerNote: 'the folder shared/data/amazon-beauty is not here: nothing was measured',
      ratios: {},
      bars: [],
    };
  const { texts, train, heldOut } = readBeauty(folder);
  print(`${train.length / 2} pairs to train on, ${heldOut.length / 2} held out`);
  const encoder = new NgramEncoder(DIM);
  const frozen: [string, Vectors][] = [
    [encoder.name, await encoder.encode(texts)],
    ...otherVectors(texts.length),
  ];
  const rows: Record<string, unknown>[] = [];
  for (const [name, vectors] of frozen) {
    const before = await pairRecall(vectors, heldOut, KS);
    let after: Record<number, number> = {};
    const { cpuSeconds } = await measure(async () => {
      const projector = await trainProjector(vectors, train, {
        steps: STEPS,
        seed: 1,
        random: seededSource(1),
      });
      after = await pairRecall(await project(projector, vectors), heldOut, KS);
    });
    const row = { name, dim: vectors.dim, before, after, cpuSeconds };
    print(JSON.stringify(row));
    rows.push(row);
  }
  const [first] = rows as { before: Record<number, number>; after: Record<number, number> }[];
  return {
    name: 'tokenizer-encoder',
    versions: { ...versions(), load: String(load()) },
    ours: { encoders: rows },
    peer: null,
    peerNote: 'none: other encoders stand in the table',
    ratios: { 'recall@50 of held-out pairs, after to before': first!.after[50]! / first!.before[50]! },
    bars: [
      {
        name: 'recall@50 after, above before',
        value: first!.after[50]!,
        bar: first!.before[50]!,
        ok: first!.after[50]! > first!.before[50]!,
      },
    ],
  };
};
export default benchmark;
