/**
 * `node packages/quantization/bench/levels.ts`: k-means against FSQ as last level with equally many codes, on seeded
 * clusters. CPU seconds rather than elapsed ones, so that a busy machine shows the same.
 */
import {
  codesForCatalogue,
  measureCodebook,
  seededSource,
  trainCodebook,
  withEncoder,
} from '../src/index.ts';

const NUM_VECTORS = 4_000;
const DIM = 64;
const NUM_CLUSTERS = 100;

const random = seededSource(3);
const normal = (): number =>
  Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
const centres = Float32Array.from({ length: NUM_CLUSTERS * DIM }, normal);
const data = Float32Array.from(
  { length: NUM_VECTORS * DIM },
  (_, i) => centres[(Math.floor(i / DIM) % NUM_CLUSTERS) * DIM + (i % DIM)]! + 0.5 * normal(),
);
const vectors = { data, numVectors: NUM_VECTORS, dim: DIM };
const numCodes = codesForCatalogue(NUM_VECTORS, 'fsq');

for (const lastLevel of ['kmeans', 'fsq'] as const) {
  const before = process.cpuUsage();
  const codebook = await trainCodebook(vectors, {
    scenario: 'bench',
    version: 1,
    numCodes,
    lastLevel,
    cutoffMs: 0,
    seed: 1,
  });
  const { user, system } = process.cpuUsage(before);
  const { conflict, exclusive, relativeErrors } = await withEncoder(codebook, (encoder) =>
    measureCodebook(encoder, vectors),
  );
  console.log(
    JSON.stringify({
      lastLevel,
      numCodes,
      trainCpuS: (user + system) / 1e6,
      conflict,
      exclusive,
      relativeErrors,
    }),
  );
}
