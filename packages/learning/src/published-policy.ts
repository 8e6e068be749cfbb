/** A published policy on onnxruntime: `loadPolicy` reads the files of an artifact. */
import { type RequestTensors, sidLayout } from '@onemall/features';
import type * as ort from 'onnxruntime-node';
import { tensorOf } from './engine/ort-sessions.ts';
import { mostCodes } from './models/next-codes.ts';
import { historyFeeds } from './models/onemall-feeds.ts';
import type { CodeLogProbs, Decoding, PolicyManifest, PolicyRuntime, UserContext } from './policy-ports.ts';
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
    for (const level of [1, 2]) later.set(`${level}-${width}`, await open(`decode-${level}-${width}`));
  return new OrtPolicy(manifest, context, first, later);
}

class OrtPolicy implements PolicyRuntime {
  readonly manifest: PolicyManifest;
  readonly #layout: ReturnType<typeof sidLayout>;
  readonly #context: ort.InferenceSession;
  readonly #first: ort.InferenceSession;
  readonly #later: ReadonlyMap<string, ort.InferenceSession>;
  /** Buffers of decodings that have ended: pages that the system has given already are not asked for again. */
  readonly #spare: Buffers[] = [];

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
    const buffers = this.#spare.pop() ?? new Buffers(this.manifest);
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
      },
      buffers,
    );
    decoding.onRelease = () => this.#spare.push(buffers);
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
    const decoding = this.begin(context);
    try {
      let found = await decoding.first();
      if (level > 0) found = await decoding.next(1, column(0), own);
      if (level > 1) found = await decoding.next(2, column(1), own);
      const count = this.manifest.numCodes[context.scenario]![level];
      const out = new Float32Array(n * count);
      for (let i = 0; i < n; i++) {
        const at = level === 0 ? 0 : i * found.stride;
        out.set(found.data.subarray(at, at + count), i * count);
      }
      return out;
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

/** Memory of one decoding, grown to the widest beam seen. */
class Buffers {
  readonly stride: readonly [number, number, number];
  readonly #cacheWidth: number;
  logProbs: Float32Array = new Float32Array(0);
  /** Of the first codes: float32 [rows, cacheWidth]. */
  cache: Float32Array = new Float32Array(0);
  /** The part of it that one run of level 2 reads. */
  chosen: Float32Array = new Float32Array(0);

  constructor({ numCodes, cacheWidth }: PolicyManifest) {
    this.stride = [mostCodes(numCodes, 0), mostCodes(numCodes, 1), mostCodes(numCodes, 2)];
    this.#cacheWidth = cacheWidth;
  }
  makeRoomForLogProbs(rows: number): void {
    const values = rows * Math.max(...this.stride);
    if (this.logProbs.length < values) this.logProbs = new Float32Array(values);
  }
  /** At level 1 only: level 2 reads what level 1 left here. */
  makeRoomForCache(rows: number): void {
    if (this.cache.length < rows * this.#cacheWidth) this.cache = new Float32Array(rows * this.#cacheWidth);
  }
}

interface Sessions {
  first: ort.InferenceSession;
  later(level: 1 | 2, width: number): ort.InferenceSession;
  /** Row of a code in the tables. @throws Error for a code that the scenario does not have */
  row(level: number, code: number): number;
}

class OrtDecoding implements Decoding {
  user: Float32Array | null = null;
  onRelease: () => void = () => {};
  readonly #manifest: PolicyManifest;
  readonly #shared: Record<string, ort.Tensor>;
  readonly #sessions: Sessions;
  readonly #buffers: Buffers;
  #cache1: ort.Tensor | undefined;

  constructor(
    manifest: PolicyManifest,
    shared: Record<string, ort.Tensor>,
    sessions: Sessions,
    buffers: Buffers,
  ) {
    this.#manifest = manifest;
    this.#shared = shared;
    this.#sessions = sessions;
    this.#buffers = buffers;
  }

  async first(): Promise<CodeLogProbs> {
    const result = await this.#sessions.first.run(this.#shared);
    this.#cache1 = result.cache!;
    this.user = (result.user?.data as Float32Array | undefined) ?? null;
    return { data: result.logProbs!.data as Float32Array, stride: this.#buffers.stride[0] };
  }

  async next(level: 1 | 2, codes: Int32Array, parents: Int32Array): Promise<CodeLogProbs> {
    if (!this.#cache1) throw new Error('`first` comes before `next`');
    const { beamWidths, cacheWidth } = this.#manifest;
    const n = codes.length;
    const widest = beamWidths.at(-1)!;
    const buffers = this.#buffers;
    const stride = buffers.stride[level];
    const room = Math.ceil(n / widest) * widest;
    buffers.makeRoomForLogProbs(room);
    if (level === 1) buffers.makeRoomForCache(room);
    for (let begin = 0; begin < n; ) {
      const width = beamWidths.find((w) => w >= n - begin) ?? widest;
      const rows = Math.min(width, n - begin);
      const code = new Int32Array(width);
      for (let i = 0; i < width; i++)
        // padding repeats a row of the beam, so that no expert sees a token of its own
        code[i] = this.#sessions.row(level - 1, codes[begin + Math.min(i, rows - 1)]!);
      const part = (all: Float32Array, columns: number): ort.Tensor =>
        tensorOf(all.subarray(begin * columns, (begin + width) * columns), [width, columns]);
      const fetches: Record<string, ort.Tensor> = { logProbs: part(buffers.logProbs, stride) };
      const feeds: Record<string, ort.Tensor> = {
        ...this.#shared,
        code: tensorOf(code, [width]),
        cache1: this.#cache1,
      };
      if (level === 1) fetches.cache = part(buffers.cache, cacheWidth);
      else {
        if (buffers.chosen.length < width * cacheWidth) buffers.chosen = new Float32Array(width * cacheWidth);
        const cache2 = buffers.chosen.subarray(0, width * cacheWidth);
        for (let i = 0; i < rows; i++) {
          const from = parents[begin + i]! * cacheWidth;
          cache2.set(buffers.cache.subarray(from, from + cacheWidth), i * cacheWidth);
        }
        feeds.cache2 = tensorOf(cache2, [width, cacheWidth]);
      }
      await this.#sessions.later(level, width).run(feeds, fetches);
      begin += rows;
    }
    return { data: buffers.logProbs, stride };
  }

  release(): void {
    this.onRelease();
    this.onRelease = () => {};
  }
}
