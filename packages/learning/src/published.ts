/** Published towers and rankers on onnxruntime: `loadItemTower` and `loadRanker` read the files of an artifact. */
import { type ItemTensors, NUM_DENSE, NUM_IDS, sidLayout } from '@onemall/features';
import * as ort from 'onnxruntime-node';
import { type Arrays, cpuSession, tensorOf } from './engine/ort-sessions.ts';
import { itemFeeds } from './models/onemall-feeds.ts';
import type { ItemTowerRuntime, RankerManifest, RankerRuntime, RankerScores } from './policy-ports.ts';
import { readPolicyManifest, readRankerManifest } from './published-manifest.ts';
import { PublishedModelError } from './trainer-ports.ts';

export interface LoadOptions {
  /** Threads of one operator; default 1. The thread that calls is busy while a graph runs. */
  numThreads?: number;
}

export type Files = ReadonlyMap<string, Uint8Array>;

/** @throws PublishedModelError as `loadPolicy` */
export async function loadItemTower(files: Files, options: LoadOptions = {}): Promise<ItemTowerRuntime> {
  const manifest = readPolicyManifest(files);
  const session = await openGraph(files, manifest.files, 'item-tower', options);
  const layout = sidLayout(manifest.scenarios, manifest.numCodes);
  const { dim, itemTowerRows: rows } = manifest;
  return {
    manifest,
    dim,
    async embed(items: readonly ItemTensors[]): Promise<Float32Array> {
      const out = new Float32Array(items.length * dim);
      for (let at = 0; at < items.length; at += rows) {
        const chunk = items.slice(at, at + rows);
        const feeds = itemFeeds(chunk, rows, layout);
        const result = await session.run(
          feed(feeds, (data) => (data.length === rows ? [rows] : [rows, data.length / rows])),
        );
        out.set((result.vectors!.data as Float32Array).subarray(0, chunk.length * dim), at * dim);
      }
      return out;
    },
    close: () => session.release(),
  };
}

/** @throws PublishedModelError as `loadPolicy`, and when the features of this code have another version */
export async function loadRanker(files: Files, options: LoadOptions = {}): Promise<RankerRuntime> {
  const manifest = readRankerManifest(files);
  const open = (role: string, rows: number) => openRanker(files, manifest, role, rows, options);
  const narrow = await open('ranker', manifest.batchRows);
  const wide = manifest.wideRows === undefined ? narrow : await open('ranker-wide', manifest.wideRows);
  const sessions = new Set([narrow.session, wide.session]);
  return {
    manifest,
    async score(dense: Float32Array, ids: Int32Array, n: number): Promise<RankerScores> {
      if (dense.length !== n * NUM_DENSE || ids.length !== n * NUM_IDS)
        throw new Error(
          `score of ${n} candidates takes ${n * NUM_DENSE} dense values and ${n * NUM_IDS} ids, got ${dense.length} and ${ids.length}`,
        );
      const scores = {
        pCtr: new Float32Array(n),
        pCtcvr: new Float32Array(n),
        buyValueCents: new Float32Array(n),
      };
      for (let at = 0; at < n; ) {
        // the last rows take the wide graph where narrow runs would pad to as many
        const { session, rows } = n - at > wide.rows - narrow.rows ? wide : narrow;
        const count = Math.min(rows, n - at);
        const result = await session.run({
          dense: tensorOf(paddedRows(dense, at, count, rows, NUM_DENSE), [rows, NUM_DENSE]),
          ids: tensorOf(paddedRows(ids, at, count, rows, NUM_IDS), [rows, NUM_IDS]),
        });
        for (const [name, values] of Object.entries(scores))
          values.set((result[name]!.data as Float32Array).subarray(0, count), at);
        at += count;
      }
      return scores;
    },
    async close() {
      for (const session of sessions) await session.release();
    },
  };
}

/** One graph of a ranker, tried out. */
async function openRanker(
  files: Files,
  { files: names }: RankerManifest,
  role: string,
  rows: number,
  options: LoadOptions,
): Promise<{ session: ort.InferenceSession; rows: number }> {
  const session = await openGraph(files, names, role, options);
  const problem = rankerProblem(session, rows) ?? (await rankerTrial(session, rows));
  if (problem === null) return { session, rows };
  await session.release();
  throw new PublishedModelError(
    `${names[role]} does not fit the contract of a ranker: ${problem}. It must take dense float32 [${rows}, ${NUM_DENSE}] and ids int32 [${rows}, ${NUM_IDS}], and give pCtr, pCtcvr and buyValueCents, float32 [${rows}] each (packages/learning/README.md, A ranker of your own).`,
  );
}

const RANKER_OUTPUTS = ['pCtr', 'pCtcvr', 'buyValueCents'] as const;

/** What the declared inputs and outputs lack; null where they fit. A dimension with a name fits any size. */
function rankerProblem(session: ort.InferenceSession, rows: number): string | null {
  const wanted: [readonly ort.InferenceSession.ValueMetadata[], string, string, number[]][] = [
    [session.inputMetadata, 'dense', 'float32', [rows, NUM_DENSE]],
    [session.inputMetadata, 'ids', 'int32', [rows, NUM_IDS]],
    ...RANKER_OUTPUTS.map(
      (name): [readonly ort.InferenceSession.ValueMetadata[], string, string, number[]] => [
        session.outputMetadata,
        name,
        'float32',
        [rows],
      ],
    ),
  ];
  for (const [all, name, type, shape] of wanted) {
    const found = all.find((value) => value.name === name);
    const kind = all === session.inputMetadata ? 'input' : 'output';
    if (!found) return `it has no ${kind} ${name} (it has ${all.map((v) => v.name).join(', ')})`;
    if (!found.isTensor || found.type !== type)
      return `${kind} ${name} is ${found.isTensor ? found.type : 'no tensor'}, expected ${type}`;
    const fits =
      found.shape.length === shape.length &&
      found.shape.every((size, i) => typeof size === 'string' || size < 0 || size === shape[i]);
    if (!fits) return `${kind} ${name} has shape [${found.shape}], expected [${shape}]`;
  }
  const others = session.inputNames.filter((name) => name !== 'dense' && name !== 'ids');
  return others.length > 0 ? `it asks for further inputs: ${others.join(', ')}` : null;
}

/** Scores an empty batch: numbers that are no probabilities would teach the policy nonsense. */
async function rankerTrial(session: ort.InferenceSession, rows: number): Promise<string | null> {
  let result: ort.InferenceSession.OnnxValueMapType;
  try {
    result = await session.run({
      dense: tensorOf(new Float32Array(rows * NUM_DENSE), [rows, NUM_DENSE]),
      ids: tensorOf(new Int32Array(rows * NUM_IDS), [rows, NUM_IDS]),
    });
  } catch (error) {
    return `it fails on a batch of zeros: ${(error as Error).message}`;
  }
  for (const name of RANKER_OUTPUTS) {
    const values = result[name]!.data as Float32Array;
    if (values.length !== rows) return `output ${name} has ${values.length} values for ${rows} rows`;
    const most = name === 'buyValueCents' ? Number.MAX_VALUE : 1;
    const bad = values.find((value) => !(value >= 0 && value <= most));
    if (bad !== undefined)
      return `output ${name} gives ${bad}, expected ${name === 'buyValueCents' ? 'a value of at least 0' : 'a probability'}`;
  }
  return null;
}

/** Rows of a static batch: a view where they fill it, a copy with zeros behind where not. */
function paddedRows<A extends Float32Array | Int32Array>(
  all: A,
  from: number,
  count: number,
  rows: number,
  width: number,
): A {
  const own = all.subarray(from * width, (from + count) * width) as A;
  if (count === rows) return own;
  const padded = (
    all instanceof Float32Array ? new Float32Array(rows * width) : new Int32Array(rows * width)
  ) as A;
  padded.set(own);
  return padded;
}

export const feed = (
  arrays: Arrays,
  shape: (data: Float32Array | Int32Array) => readonly number[],
): Record<string, ort.Tensor> =>
  Object.fromEntries(Object.entries(arrays).map(([name, data]) => [name, tensorOf(data, shape(data))]));

export async function openGraph(
  files: Files,
  roles: Readonly<Record<string, string>>,
  role: string,
  { numThreads = 1 }: LoadOptions,
  prepare: (model: Uint8Array) => Uint8Array = (model) => model,
): Promise<ort.InferenceSession> {
  const name = roles[role];
  const bytes = name === undefined ? undefined : files.get(name);
  if (!bytes)
    throw new PublishedModelError(
      `The published model has no ${name ?? `file for ${role}`}; it holds ${[...files.keys()].join(', ')}. Publish it again or use an older version.`,
    );
  try {
    return await ort.InferenceSession.create(prepare(bytes), cpuSession(numThreads));
  } catch (cause) {
    throw new PublishedModelError(
      `${name} (${bytes.length} bytes) is no ONNX graph that onnxruntime loads: ${(cause as Error).message}. Publish it again or use an older version.`,
      { cause },
    );
  }
}
