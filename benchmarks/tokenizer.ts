/**
 * k-means of 4096 centroids over 100,000 x 128 beside faiss on the same vectors, encoding through all three levels, and
 * k-means of a file that is never in memory as a whole.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import {
  type KmeansState,
  seededSource,
  trainCodebook,
  trainKmeans,
  type VectorEncoder,
  type VectorSource,
  type Vectors,
  withEncoder,
} from '@onemall/quantization';
import { withEncoderThreads } from '@onemall/quantization/encoder-threads';
import { load, measure, versions } from './report/machine.ts';
import { type Benchmark, type BenchmarkResult, median } from './report/result.ts';

const DIM = 128;
const K = 4_096;
const NUM_VECTORS = 100_000;
const ITERATIONS = 25;
const THREADS = Math.min(2, availableParallelism());
const STREAMED = 1_000_000;
const CHUNK = 16_384;
const WHOLE_STREAM = 10_000_000;

const MAX_FAISS_SHARE = 0.7;
const MIN_ENCODED_PER_S = 80_000;
const MAX_STREAM_MIB = 1_024;

/** As the peer's: 2,000 Gaussian clusters of uneven sizes. */
function mixture(): (numVectors: number, seed: number) => Vectors {
  const random = seededSource(1);
  const normals = Float32Array.from(
    { length: 1 << 20 },
    () => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next()),
  );
  const centres = normals.subarray(0, 2_000 * DIM);
  return (numVectors, seed) => {
    const draws = seededSource(seed);
    const data = new Float32Array(numVectors * DIM);
    for (let i = 0, at = 0; i < numVectors; i++) {
      const centre = Math.floor(draws.next() ** 2 * 2_000) * DIM;
      // A stretch of the table from anywhere, stepped through by an odd number: each row has noise of its own.
      let from = Math.floor(draws.next() * normals.length);
      const step = 2 * Math.floor(draws.next() * 1_000) + 1;
      for (let d = 0; d < DIM; d++, at++, from = (from + step) % normals.length)
        data[at] = centres[centre + d]! + 0.6 * normals[from]!;
    }
    return { data, numVectors, dim: DIM };
  };
}

interface Peer {
  faiss: string;
  kmeans: [{ trainS: number; sPerIter: number; cpuSPerIter: number; encodeS: number; relErr: number }];
}

/** The peer's figures on the vectors of a file; null where python or faiss is absent. */
function runFaiss(file: string): Peer | null {
  const script = `
import sys, time, json, numpy as np, faiss
n, d, k, iters, threads = ${NUM_VECTORS}, ${DIM}, ${K}, ${ITERATIONS}, ${THREADS}
faiss.omp_set_num_threads(threads)
x = np.fromfile(sys.argv[1], np.float32).reshape(-1, d)
km = faiss.Kmeans(d, k, niter=iters, seed=1, max_points_per_centroid=1 << 30, min_points_per_centroid=1)
t, c = time.perf_counter(), time.process_time(); km.train(x)
t1, c1 = time.perf_counter(), time.process_time(); _, i = km.index.search(x, 1); t2 = time.perf_counter()
e = float(((x - km.centroids[i[:, 0]]) ** 2).sum(1).mean() / (x ** 2).sum(1).mean())
print(json.dumps(dict(faiss=faiss.__version__, kmeans=[dict(trainS=t1 - t, sPerIter=(t1 - t) / iters,
  cpuSPerIter=(c1 - c) / iters, encodeS=t2 - t1, relErr=e)])))`;
  const run = spawnSync('python3', ['-c', script, file], { encoding: 'utf8', timeout: 180_000 });
  return run.status === 0 ? (JSON.parse(run.stdout) as Peer) : null;
}

/** float32 rows of a file, read anew on each pass. */
function fileSource(file: string, numVectors: number): VectorSource {
  return {
    dim: DIM,
    *chunks() {
      const open = openSync(file, 'r');
      try {
        for (let from = 0; from < numVectors; from += CHUNK) {
          const count = Math.min(CHUNK, numVectors - from);
          const data = new Float32Array(count * DIM);
          readSync(open, data, 0, data.byteLength, from * DIM * 4);
          yield { data, numVectors: count, dim: DIM };
        }
      } finally {
        closeSync(open);
      }
    },
  };
}

const meanSquare = ({ data, numVectors }: Vectors): number => {
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum += data[i]! * data[i]!;
  return sum / numVectors;
};

/** k-means beside faiss: seconds per iteration, and until the error is that of faiss after all its iterations. */
async function kmeansBesideFaiss(vectors: Vectors, peer: Peer | null): Promise<Record<string, number>> {
  const whole = meanSquare(vectors);
  const marks: { s: number; error: number }[] = [];
  const target = peer?.kmeans[0].relErr ?? 0;
  let begun = performance.now();
  const onIteration = ({ meanSquaredError }: KmeansState): void => {
    const nowMs = performance.now();
    marks.push({ s: (nowMs - begun) / 1000, error: meanSquaredError / whole });
    begun = nowMs;
  };
  const { cpuSeconds, seconds } = await measure(() =>
    trainKmeans(vectors, {
      numCodes: K,
      random: seededSource(1),
      maxIterations: ITERATIONS,
      tolerance: 0,
      numThreads: THREADS,
      onIteration,
    }),
  );
  // The error of a state is known one iteration later, when the vectors are assigned to it.
  const reached = marks.findIndex(({ error }) => error <= target);
  const sPerIteration = median(marks.slice(1).map(({ s }) => s));
  const toTarget =
    reached < 0 ? Number.POSITIVE_INFINITY : marks.slice(0, reached).reduce((sum, { s }) => sum + s, 0);
  return {
    trainS: seconds,
    trainCpuS: cpuSeconds,
    startsS: marks[0]!.s - sPerIteration,
    sPerIteration,
    relativeError: marks.at(-1)!.error,
    iterationsToPeersError: reached < 0 ? -1 : reached,
    sToPeersError: peer ? toTarget : 0,
  };
}

async function encodeAll(vectors: Vectors): Promise<Record<string, unknown>> {
  const training = { ...vectors, data: vectors.data.subarray(0, 20_000 * DIM), numVectors: 20_000 };
  const codebook = await trainCodebook(training, {
    scenario: 'bench',
    version: 1,
    numCodes: [K, K, K],
    lastLevel: 'fsq',
    cutoffMs: 0,
    seed: 1,
    maxIterations: 1,
    fsq: { epochs: 1 },
    numThreads: THREADS,
  });
  const rounds = await withEncoderThreads(
    codebook,
    { numVectors: vectors.numVectors, maxThreads: THREADS },
    (encoder) => encodeRounds(encoder, vectors),
  );
  const alone = await withEncoder(codebook, (encoder) =>
    encodeRounds(encoder, { ...vectors, data: vectors.data.subarray(0, 20_000 * DIM), numVectors: 20_000 }),
  );
  return {
    encodedPerS: median(rounds.map((r) => r.perS)),
    encodedPerCpuS: median(rounds.map((r) => r.perCpuS)),
    encodedPerCpuSOnOneThread: median(alone.map((r) => r.perCpuS)),
    rounds,
  };
}

/** What the jobs run over whole catalogues; the first round is not counted. */
async function encodeRounds(
  encoder: VectorEncoder,
  vectors: Vectors,
): Promise<{ perS: number; perCpuS: number; load: number }[]> {
  const rounds: { perS: number; perCpuS: number; load: number }[] = [];
  for (let round = 0; round <= 5; round++) {
    const { seconds, cpuSeconds } = await measure(() => encoder.encode(vectors));
    if (round > 0)
      rounds.push({
        perS: Math.round(vectors.numVectors / seconds),
        perCpuS: Math.round(vectors.numVectors / cpuSeconds),
        load: load(),
      });
  }
  return rounds;
}

/** Two iterations over a file larger than what may be kept; the rest is arithmetic, and called so. */
async function trainFromFile(file: string): Promise<Record<string, number>> {
  const before = process.memoryUsage().rss;
  let peak = before;
  const ends: number[] = [];
  const source = fileSource(file, STREAMED);
  const begun = performance.now();
  await trainKmeans(
    {
      dim: DIM,
      *chunks() {
        for (const chunk of source.chunks() as Iterable<Vectors>) {
          yield chunk;
          peak = Math.max(peak, process.memoryUsage().rss);
        }
      },
    },
    {
      numCodes: K,
      random: seededSource(1),
      maxIterations: 2,
      tolerance: 0,
      numThreads: THREADS,
      onIteration: () => void ends.push(performance.now()),
    },
  );
  const iterationS = (ends[1]! - ends[0]!) / 1000;
  const startsAndFirstIterationS = (ends[0]! - begun) / 1000;
  const times = WHOLE_STREAM / STREAMED;
  return {
    streamedVectors: STREAMED,
    streamedMiB: (STREAMED * DIM * 4) / 2 ** 20,
    addedPeakMiB: (peak - before) / 2 ** 20,
    startsAndFirstIterationS,
    iterationS,
    extrapolatedIterationS10M: iterationS * times,
    // The second level assigns to the first one again on each pass; FSQ trains on a sample.
    extrapolatedHours10M: ((startsAndFirstIterationS + (3 * ITERATIONS - 1) * iterationS) * times) / 3600,
  };
}

const benchmark: Benchmark = async (print): Promise<BenchmarkResult> => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-bench-'));
  try {
    const draw = mixture();
    const file = path.join(folder, 'vectors.f32');
    const write = (numVectors: number): void => {
      const open = openSync(file, 'w');
      for (let from = 0; from < numVectors; from += CHUNK)
        writeSync(open, new Uint8Array(draw(Math.min(CHUNK, numVectors - from), from + 1).data.buffer));
      closeSync(open);
    };
    write(STREAMED);
    const streamed = await trainFromFile(file);
    print(`streamed: ${JSON.stringify(streamed)}`);
    write(NUM_VECTORS);
    const data = new Float32Array(NUM_VECTORS * DIM);
    let at = 0;
    for (const chunk of fileSource(file, NUM_VECTORS).chunks() as Iterable<Vectors>) {
      data.set(chunk.data, at);
      at += chunk.data.length;
    }
    const vectors = { data, numVectors: NUM_VECTORS, dim: DIM };
    const peer = runFaiss(file);
    print(`faiss: ${JSON.stringify(peer)}`);
    const kmeans = await kmeansBesideFaiss(vectors, peer);
    print(`k-means: ${JSON.stringify(kmeans)}`);
    const encoded = await encodeAll(vectors);
    const faiss = peer?.kmeans[0];
    const share = faiss ? kmeans.sToPeersError! / faiss.trainS : 0;
    return {
      name: 'tokenizer',
      versions: { ...versions(), load: String(load()) },
      ours: { kmeans, ...encoded, streamed },
      peer: faiss ? { name: `faiss ${peer.faiss}`, kmeans: faiss, encodedPerS: undefined } : null,
      peerNote: 'python3 with faiss-cpu and numpy is not here',
      ratios: faiss
        ? {
            'time to the same error, ours to faiss': share,
            'time per iteration, ours to faiss': kmeans.sPerIteration! / faiss.sPerIter,
            'error after as many iterations, ours to faiss': kmeans.relativeError! / faiss.relErr,
          }
        : {},
      bars: [
        ...(faiss
          ? [
              {
                name: 'share of the time of faiss, same error',
                value: share,
                bar: MAX_FAISS_SHARE,
                ok: share <= MAX_FAISS_SHARE,
              },
            ]
          : []),
        {
          name: 'vectors encoded per second',
          value: encoded.encodedPerS as number,
          bar: MIN_ENCODED_PER_S,
          ok: (encoded.encodedPerS as number) >= MIN_ENCODED_PER_S,
        },
        {
          name: 'MiB added by training from a file',
          value: streamed.addedPeakMiB!,
          bar: MAX_STREAM_MIB,
          ok: streamed.addedPeakMiB! <= MAX_STREAM_MIB,
        },
      ],
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
export default benchmark;
