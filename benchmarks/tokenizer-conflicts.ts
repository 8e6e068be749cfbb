/**
 * How many items share a semantic ID: three levels of residual k-means against two and FSQ (the paper's table 5), on
 * Amazon Beauty's embeddings and texts where that folder is there, and on a million items with families of near
 * duplicates at the paper's 4096 codes per level.
 */
import { readFileSync } from 'node:fs';
import {
  codesForCatalogue,
  seededSource,
  stackVectors,
  textEmbedding,
  type Vectors,
} from '@onemall/quantization';
import { beautyFolder } from './report/beauty.ts';
import { load, versions } from './report/machine.ts';
import type { Benchmark } from './report/result.ts';
import {
  type Catalogue,
  type ConflictRow,
  conflictRows,
  fsqShare,
  PAPER,
} from './tokenizer-conflicts/table.ts';

const FAMILY_ITEMS = 1_000_000;
const DIM = 64;

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
  const tables: ConflictRow[] = [];
  for (const catalogue of catalogues) tables.push(...(await conflictRows(catalogue, print)));
  const share = fsqShare(tables.slice(-2));
  return {
    name: 'tokenizer-conflicts',
    versions: { ...versions(), load: String(load()) },
    ours: { tables },
    peer: { name: "the paper's table 5, on its own catalogue and definition", ...PAPER },
    ratios: {
      'conflict, FSQ to k-means, ours': share,
      'conflict, FSQ to k-means, the paper': fsqShare([PAPER.ResKmeans, PAPER.ResKmeansFSQ]),
    },
    bars: [
      { name: 'conflict of FSQ below that of k-means: share of it', value: share, bar: 1, ok: share < 1 },
    ],
  };
};
export default benchmark;
