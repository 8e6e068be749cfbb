/** A published policy on onnxruntime: `loadPolicy` reads the files of an artifact. */
import { type RequestTensors, sidLayout } from '@onemall/features';
import type * as ort from 'onnxruntime-node';
import { tensorOf } from './engine/ort-sessions.ts';
import { mostCodes } from './models/next-codes.ts';
import { historyFeeds } from './models/onemall-feeds.ts';
import { PICKED, pickValues, WANTED } from './onnx/pick-values.ts';
import type { AskedCodes, Decoding, PolicyManifest, PolicyRuntime, UserContext } from './policy-ports.ts';
import { type Files, feed, type LoadOptions, openGraph } from './published.ts';
import { readPolicyManifest } from './published-manifest.ts';

type Level = 0 | 1 | 2;

/** @throws PublishedModelError when a file is missing, corrupt or of another format */
export async function loadPolicy(files: Files, options: LoadOptions = {}): Promise<PolicyRuntime> {
  const manifest = readPolicyManifest(files);
  const open = (role: string) => openGraph(files, manifest.files, role, options);
  const context = await open('context');
  const first = await open('decode-0');
  const later = new Map<string, ort.InferenceSession>();
  for (const width of manifest.beamWidths)
    for (const level of [1, 2]) {
      const role = `decode-${level}-${width}`;
      const pick = (model: Uint8Array): Uint8Array => pickValues(model, 'logProbs');
      later.set(`${level}-${width}`, await openGraph(files, manifest.files, role, options, pick));
    }
  return new OrtPolicy(manifest, context, first, later);
}

class OrtPolicy implements PolicyRuntime {
  readonly manifest: PolicyManifest;
  readonly #layout: ReturnType<typeof sidLayout>;
  readonly #context: ort.InferenceSession;
  readonly #first: ort.InferenceSession;
  readonly #later: ReadonlyMap<string, ort.InferenceSession>;
  /** Of decodings that have ended: pages that the system has given already are not asked for again. */
  readonly #spare: Scratch[] = [];

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

  begin(context: UserContext): Decoding {
    const { contextRows, dim, scenarios } = this.manifest;
    this.#offsets(context.scenario);
    if (context.data.length !== contextRows * dim)
      throw new Error(
        `This policy's context has ${contextRows} x ${dim} values, got ${context.data.length}; contexts belong to one policy version`,
      );
    const scratch = this.#spare.pop() ?? new Scratch();
    const decoding = new OrtDecoding(
      this.manifest,
      {
        context: tensorOf(context.data, [contextRows, dim]),
        scenario: tensorOf(Int32Array.of(scenarios.indexOf(context.scenario)), [1]),
      },
      {
        first: this.#first,
        later: (level, width) => this.#later.get(`${level}-${width}`)!,
        row: (level, code) => this.#row(context.scenario, level, code),
        numCodes: this.manifest.numCodes[context.scenario]!,
        stride: [0, 1, 2].map((level) => mostCodes(this.manifest.numCodes, level)) as [
          number,
          number,
          number,
        ],
      },
      scratch,
    );
    decoding.onRelease = () => this.#spare.push(scratch);
    return decoding;
  }

  async decode(context: UserContext, level: Level, prefixes: Int32Array, n: number): Promise<Float32Array> {
    if (prefixes.length !== n * level)
      throw new Error(
        `decode at level ${level} of ${n} rows takes ${n * level} codes, got ${prefixes.length}`,
      );
    const column = (l: number): Int32Array =>
      Int32Array.from({ length: n }, (_, i) => prefixes[i * level + l]!);
    const own = Int32Array.from({ length: n }, (_, i) => i);
    const every = (l: Level): AskedCodes => {
      const count = this.manifest.numCodes[context.scenario]![l];
      return {
        codes: Int32Array.from({ length: count }, (_, code) => code),
        from: new Int32Array(n),
        to: new Int32Array(n).fill(count),
      };
    };
    const decoding = this.begin(context);
    try {
      const first = await decoding.first();
      if (level === 0) {
        const out = new Float32Array(n * first.length);
        for (let i = 0; i < n; i++) out.set(first, i * first.length);
        return out;
      }
      if (level === 1) return await decoding.next(1, column(0), own, every(1));
      await decoding.next(1, column(0), own, NOTHING_ASKED(n));
      return await decoding.next(2, column(1), own, every(2));
    } finally {
      decoding.release();
    }
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

const NOTHING_ASKED = (rows: number): AskedCodes => ({
  codes: new Int32Array(0),
  from: new Int32Array(rows),
  to: new Int32Array(rows),
});

/** Memory of one decoding, grown to the widest beam seen. */
class Scratch {
  #cache = new Float32Array(0);
  #wanted = new Int32Array(0);

  /** Rows of the cache that one run of level 2 reads. */
  cache(size: number): Float32Array {
    if (this.#cache.length < size) this.#cache = new Float32Array(size);
    return this.#cache.subarray(0, size);
  }
  /** Room for positions, 0 beyond `count`. */
  wanted(count: number): Int32Array {
    const size = roomFor(count);
    if (this.#wanted.length < size) this.#wanted = new Int32Array(size);
    return this.#wanted.subarray(0, size).fill(0, count);
  }
}

/** At least `count`, at most an eighth more, and one of few: onnxruntime keeps a plan of its memory for each size that it meets. */
function roomFor(count: number): number {
  const step = 2 ** Math.max(LEAST_STEP_BITS, Math.floor(Math.log2(Math.max(count, 1))) - 3);
  return Math.max(1, Math.ceil(count / step)) * step;
}
const LEAST_STEP_BITS = 8;

interface Sessions {
  first: ort.InferenceSession;
  later(level: 1 | 2, width: number): ort.InferenceSession;
  /** Row of a code in the tables. @throws Error for a code that the scenario does not have */
  row(level: number, code: number): number;
  /** Codes per level: of the scenario, and columns of the graphs. */
  numCodes: readonly [number, number, number];
  stride: readonly [number, number, number];
}

class OrtDecoding implements Decoding {
  user: Float32Array | null = null;
  onRelease: () => void = () => {};
  readonly #manifest: PolicyManifest;
  readonly #shared: Record<string, ort.Tensor>;
  readonly #sessions: Sessions;
  readonly #scratch: Scratch;
  #cache1: ort.Tensor | undefined;
  /** Of the first codes: float32 [rows, cacheWidth]. */
  #cache2: Float32Array = new Float32Array(0);

  constructor(
    manifest: PolicyManifest,
    shared: Record<string, ort.Tensor>,
    sessions: Sessions,
    scratch: Scratch,
  ) {
    this.#manifest = manifest;
    this.#shared = shared;
    this.#sessions = sessions;
    this.#scratch = scratch;
  }

  async first(): Promise<Float32Array> {
    const result = await this.#sessions.first.run(this.#shared);
    this.#cache1 = result.cache!;
    this.user = (result.user?.data as Float32Array | undefined) ?? null;
    return (result.logProbs!.data as Float32Array).subarray(0, this.#sessions.numCodes[0]);
  }

  async next(level: 1 | 2, codes: Int32Array, parents: Int32Array, asked: AskedCodes): Promise<Float32Array> {
    if (!this.#cache1) throw new Error('`first` comes before `next`');
    const { beamWidths, cacheWidth } = this.#manifest;
    const n = codes.length;
    const widest = beamWidths.at(-1)!;
    const found: Float32Array[] = [];
    const caches: Float32Array[] = [];
    for (let begin = 0; begin < n; ) {
      const width = beamWidths.find((w) => w >= n - begin) ?? widest;
      const rows = Math.min(width, n - begin);
      const code = new Int32Array(width);
      for (let i = 0; i < width; i++)
        // padding repeats a row of the beam, so that no expert sees a token of its own
        code[i] = this.#sessions.row(level - 1, codes[begin + Math.min(i, rows - 1)]!);
      const { wanted, count } = this.#wanted(level, asked, begin, rows);
      const feeds: Record<string, ort.Tensor> = {
        ...this.#shared,
        code: tensorOf(code, [width]),
        cache1: this.#cache1,
        [WANTED]: tensorOf(wanted, [wanted.length]),
      };
      if (level === 2) {
        const cache2 = this.#scratch.cache(width * cacheWidth);
        for (let i = 0; i < rows; i++) {
          const from = parents[begin + i]! * cacheWidth;
          cache2.set(this.#cache2.subarray(from, from + cacheWidth), i * cacheWidth);
        }
        feeds.cache2 = tensorOf(cache2, [width, cacheWidth]);
      }
      const result = await this.#sessions.later(level, width).run(feeds);
      found.push((result[PICKED]!.data as Float32Array).subarray(0, count));
      if (level === 1) caches.push(result.cache!.data as Float32Array);
      begin += rows;
    }
    if (level === 1) this.#cache2 = joined(caches);
    return joined(found);
  }

  release(): void {
    this.onRelease();
    this.onRelease = () => {};
  }

  /** Positions of the asked codes of some rows in the log-probabilities of one run, and how many they are. */
  #wanted(level: 1 | 2, { codes, from, to }: AskedCodes, begin: number, rows: number) {
    let count = 0;
    for (let row = begin; row < begin + rows; row++) count += to[row]! - from[row]!;
    const wanted = this.#scratch.wanted(count);
    const stride = this.#sessions.stride[level];
    let at = 0;
    for (let row = 0; row < rows; row++) {
      const end = to[begin + row]!;
      for (let i = from[begin + row]!; i < end; i++) wanted[at++] = row * stride + codes[i]!;
    }
    return { wanted, count };
  }
}

/** The arrays one after the other; the array itself where there is only one. */
function joined(parts: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0]!;
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
