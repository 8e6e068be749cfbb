/** Published models on onnxruntime: `loadPolicy`, `loadItemTower`, `loadRanker` read the files of an artifact. */
import { type ItemTensors, NUM_DENSE, NUM_IDS, type RequestTensors, sidLayout } from '@onemall/features';
import * as ort from 'onnxruntime-node';
import { type Arrays, cpuSession, tensorOf } from './engine/ort-sessions.ts';
import { historyFeeds, itemFeeds } from './models/onemall-feeds.ts';
import type {
  ItemTowerRuntime,
  PolicyManifest,
  PolicyRuntime,
  RankerRuntime,
  RankerScores,
  UserContext,
} from './policy-ports.ts';
import { readPolicyManifest, readRankerManifest } from './published-manifest.ts';
import { PublishedModelError } from './trainer-ports.ts';

export interface LoadOptions {
  /** Threads of one operator; default 1. The thread that calls is busy while a graph runs. */
  numThreads?: number;
}

type Files = ReadonlyMap<string, Uint8Array>;

/** @throws PublishedModelError when a file is missing, corrupt or of another format */
export async function loadPolicy(files: Files, options: LoadOptions = {}): Promise<PolicyRuntime> {
  const manifest = readPolicyManifest(files);
  const open = (role: string) => openGraph(files, manifest.files, role, options);
  const context = await open('context');
  const first = await open('decode-1-0');
  const later = new Map<string, ort.InferenceSession>();
  for (const width of manifest.beamWidths)
    for (const level of [1, 2]) later.set(`${width}-${level}`, await open(`decode-${width}-${level}`));
  return new OrtPolicy(manifest, context, first, later);
}

class OrtPolicy implements PolicyRuntime {
  readonly manifest: PolicyManifest;
  readonly #layout: ReturnType<typeof sidLayout>;
  readonly #context: ort.InferenceSession;
  readonly #first: ort.InferenceSession;
  readonly #later: ReadonlyMap<string, ort.InferenceSession>;

  constructor(
    manifest: PolicyManifest,
    context: ort.InferenceSession,
    first: ort.InferenceSession,
    later: ReadonlyMap<string, ort.InferenceSession>,
  ) {
    this.manifest = manifest;
    this.#layout = sidLayout(manifest.scenarios, manifest.numCodes);
    this.#context = context;
    this.#first = first;
    this.#later = later;
  }

  async encode(request: RequestTensors): Promise<UserContext> {
    this.#offsets(request.scenario);
    const h = this.manifest.historyLength;
    const feeds = historyFeeds([request], 1, h);
    const result = await this.#context.run(feed(feeds, () => [3, 1, h]));
    return { scenario: request.scenario, data: result.context!.data as Float32Array };
  }

  async decode(
    context: UserContext,
    level: 0 | 1 | 2,
    prefixes: Int32Array,
    n: number,
  ): Promise<Float32Array> {
    const { contextRows, dim, numCodes, scenarios, beamWidths } = this.manifest;
    const offsets = this.#offsets(context.scenario);
    if (prefixes.length !== n * level)
      throw new Error(
        `decode at level ${level} of ${n} rows takes ${n * level} codes, got ${prefixes.length}`,
      );
    if (context.data.length !== contextRows * dim)
      throw new Error(
        `This policy's context has ${contextRows} x ${dim} values, got ${context.data.length}; contexts belong to one policy version`,
      );
    const shared = {
      context: tensorOf(context.data, [contextRows, dim]),
      scenario: tensorOf(Int32Array.of(scenarios.indexOf(context.scenario)), [1]),
    };
    const count = numCodes[context.scenario]![level];
    const out = new Float32Array(n * count);
    const total = this.#layout.rows[level];
    const take = (result: ort.InferenceSession.OnnxValueMapType, row: number, to: number): void => {
      const at = row * total + offsets[level];
      out.set((result.logProbs!.data as Float32Array).subarray(at, at + count), to * count);
    };
    if (level === 0) {
      const result = await this.#first.run(shared);
      for (let i = 0; i < n; i++) take(result, 0, i);
      return out;
    }
    for (let begin = 0; begin < n; ) {
      const width = beamWidths.find((w) => w >= n - begin) ?? beamWidths.at(-1)!;
      const rows = Math.min(width, n - begin);
      const feeds: Record<string, ort.Tensor> = { ...shared };
      for (let l = 0; l < level; l++) {
        const column = new Int32Array(width).fill(offsets[l]!);
        for (let i = 0; i < rows; i++)
          column[i] = this.#row(context.scenario, l, prefixes[(begin + i) * level + l]!);
        feeds[`prefix${l + 1}`] = tensorOf(column, [width]);
      }
      const result = await this.#later.get(`${width}-${level}`)!.run(feeds);
      for (let i = 0; i < rows; i++) take(result, i, begin + i);
      begin += rows;
    }
    return out;
  }

  async close(): Promise<void> {
    for (const session of [this.#context, this.#first, ...this.#later.values()]) await session.release();
  }

  #offsets(scenario: string): readonly [number, number, number] {
    const offsets = this.#layout.offsets.get(scenario);
    if (!offsets)
      throw new Error(
        `Policy ${this.manifest.policyVersion} does not know ${scenario}; it knows ${this.manifest.scenarios.join(', ')}`,
      );
    return offsets;
  }

  #row(scenario: string, level: number, code: number): number {
    const count = this.#layout.numCodes[scenario]![level]!;
    if (!(code >= 0 && code < count))
      throw new Error(`Code ${code} of level ${level + 1} in ${scenario} is outside 0..${count - 1}`);
    return this.#layout.offsets.get(scenario)![level]! + code;
  }
}

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
  const session = await openGraph(files, manifest.files, 'ranker', options);
  const rows = manifest.batchRows;
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
      for (let at = 0; at < n; at += rows) {
        const count = Math.min(rows, n - at);
        const denseRows = new Float32Array(rows * NUM_DENSE);
        denseRows.set(dense.subarray(at * NUM_DENSE, (at + count) * NUM_DENSE));
        const idRows = new Int32Array(rows * NUM_IDS);
        idRows.set(ids.subarray(at * NUM_IDS, (at + count) * NUM_IDS));
        const result = await session.run({
          dense: tensorOf(denseRows, [rows, NUM_DENSE]),
          ids: tensorOf(idRows, [rows, NUM_IDS]),
        });
        for (const [name, values] of Object.entries(scores))
          values.set((result[name]!.data as Float32Array).subarray(0, count), at);
      }
      return scores;
    },
    close: () => session.release(),
  };
}

const feed = (
  arrays: Arrays,
  shape: (data: Float32Array | Int32Array) => readonly number[],
): Record<string, ort.Tensor> =>
  Object.fromEntries(Object.entries(arrays).map(([name, data]) => [name, tensorOf(data, shape(data))]));

async function openGraph(
  files: Files,
  roles: Readonly<Record<string, string>>,
  role: string,
  { numThreads = 1 }: LoadOptions,
): Promise<ort.InferenceSession> {
  const name = roles[role];
  const bytes = name === undefined ? undefined : files.get(name);
  if (!bytes)
    throw new PublishedModelError(
      `The published model has no ${name ?? `file for ${role}`}; it holds ${[...files.keys()].join(', ')}. Publish it again or use an older version.`,
    );
  try {
    return await ort.InferenceSession.create(bytes, cpuSession(numThreads));
  } catch (cause) {
    throw new PublishedModelError(
      `${name} (${bytes.length} bytes) is no ONNX graph that onnxruntime loads: ${(cause as Error).message}. Publish it again or use an older version.`,
      { cause },
    );
  }
}
