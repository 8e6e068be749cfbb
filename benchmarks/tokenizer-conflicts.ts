/**
 * How many items share a semantic ID: three levels of residual k-means against two and FSQ (the paper's table 5), on
 * Amazon Beauty's embeddings and texts where that folder is there, and on a million items with families of near
 * duplicates at the paper's 4096 codes per level.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import {
  type CodebookMetrics,
  codesForCatalogue,
  measureCodebook,
  seededSource,
  stackVectors,
  textEmbedding,
  trainCodebook,
  type Vectors,
  withEncoder,
} from '@onemall/quantization';
import { beautyFolder } from './report/beauty.ts';
import { load, measure, versions } from './report/machine.ts';
import type { Benchmark } from './report/result.ts';

const THREADS = Math.min(2, availableParallelism());
const FAMILY_ITEMS = 1_000_000;
const DIM = 64;
const PAPER = {
  ResKmeans: { conflict: 0.36, exclusive: 0.86 },
  ResKmeansFSQ: { conflict: 0.11, exclusive: 0.95 },
};

interface Catalogue {
  name: string;
  vectors: Vectors;
  codes: readonly [number, number, number];
  maxIterations: number;
  maxVectorsPerCode: number;
}

function beauty(folder: string): Catalogue[] {
  const bytes = readFileSync(`${folder}Beauty_cf_embeddings.f32`);
  const dim = 32;
  const data = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  const items = JSON.parse(readFileSync(`${folder}Beauty_item_text.json`, 'utf8')) as Record<
    string,
    { attributes: string[] }
  >;
  const text = stackVectors(
    Object.entries(items).map(([itemId, { attributes }]) =>
      textEmbedding({ itemId, title: attributes.join(' '), category: '', tags: attributes }, DIM),
    ),
  );
  return [
    { name: 'Beauty, vectors of a recommender', vectors: { data, numVectors: data.length / dim, dim } },
    { name: 'Beauty, texts', vectors: text },
  ].map(({ name, vectors }) => ({
    name,
    vectors,
    codes: codesForCatalogue(vectors.numVectors, 'fsq'),
    maxIterations: 25,
    maxVectorsPerCode: 256,
  }));
}

/**
 * Items of 2,000 categories; half of them stand alone, the others are in families of 2 to 9 offers of one product, which
 * lie apart by 5 to 50 % of the distance between products of a category.
 */
function families(numItems: number): Vectors {
  const random = seededSource(7);
  const normal = (): number =>
    Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
  const numCategories = 2_000;
  const centres = Float32Array.from({ length: numCategories * DIM }, normal);
  const data = new Float32Array(numItems * DIM);
  const product = new Float32Array(DIM);
  for (let i = 0; i < numItems; ) {
    const category = Math.floor(random.next() ** 2 * numCategories) * DIM;
    for (let d = 0; d < DIM; d++) product[d] = centres[category + d]! + 0.6 * normal();
    const size = random.next() < 0.85 ? 1 : 2 + Math.floor(random.next() * 8);
    const spread = 0.6 * 0.05 * 10 ** random.next();
    for (let of = 0; of < size && i < numItems; of++, i++)
      for (let d = 0; d < DIM; d++) data[i * DIM + d] = product[d]! + (size > 1 ? spread * normal() : 0);
  }
  return { data, numVectors: numItems, dim: DIM };
}

const benchmark: Benchmark = async (print) => {
  const folder = beautyFolder();
  const catalogues: Catalogue[] = [
    ...(folder ? beauty(folder) : []),
    {
      name: 'a million items with families of near duplicates',
      vectors: families(FAMILY_ITEMS),
      codes: [4_096, 4_096, 4_096],
      maxIterations: 8,
      maxVectorsPerCode: 32,
    },
  ];
  const tables: Record<string, unknown>[] = [];
  // Equally many codes for both: the difference is the kind of the last level alone.
  for (const { name, vectors, codes, maxIterations, maxVectorsPerCode } of catalogues)
    for (const lastLevel of ['kmeans', 'fsq'] as const) {
      let metrics: CodebookMetrics | undefined;
      const { cpuSeconds } = await measure(async () => {
        const codebook = await trainCodebook(vectors, {
          scenario: 'bench',
          version: 1,
          numCodes: codes,
          lastLevel,
          cutoffMs: 0,
          seed: 1,
          maxIterations,
          maxVectorsPerCode,
          numThreads: THREADS,
        });
        metrics = await withEncoder(codebook, (encoder) => measureCodebook(encoder, vectors), THREADS);
      });
      const row = {
        name,
        tokenizer: lastLevel === 'fsq' ? 'ResKmeansFSQ' : 'ResKmeans',
        codes,
        ...metrics!,
        cpuSeconds,
      };
      print(JSON.stringify(row));
      tables.push(row);
    }
  const at = (tokenizer: string): { conflict: number; exclusive: number } =>
    tables.findLast((row) => row.tokenizer === tokenizer) as never;
  const [kmeans, fsq] = [at('ResKmeans'), at('ResKmeansFSQ')];
  return {
    name: 'tokenizer-conflicts',
    versions: { ...versions(), load: String(load()) },
    ours: { tables },
    peer: { name: "the paper's table 5, on its own catalogue and definition", ...PAPER },
    ratios: {
      'conflict, FSQ to k-means, ours': fsq.conflict / kmeans.conflict,
      'conflict, FSQ to k-means, the paper': PAPER.ResKmeansFSQ.conflict / PAPER.ResKmeans.conflict,
    },
    bars: [
      {
        name: 'conflict of FSQ below that of k-means: share of it',
        value: fsq.conflict / kmeans.conflict,
        bar: 1,
        ok: fsq.conflict < kmeans.conflict,
      },
    ],
  };
};
export default benchmark;
