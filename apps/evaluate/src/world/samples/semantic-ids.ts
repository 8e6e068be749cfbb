/**
 * Semantic IDs of a log's items: codebooks trained on what was known before the cut, codes of all products and videos, and of
 * every version of every live room.
 */
import { createHash } from 'node:crypto';
import type { Sid } from '@onemall/contracts';
import type { NumCodes } from '@onemall/features';
import {
  type Codebook,
  CodebookEncoder,
  codesForCatalogue,
  roomVector,
  sampleIndices,
  seededSource,
  trainCodebook,
  type Vectors,
  videoVector,
} from '@onemall/quantization';
import type { WorldLog } from '../log/world-log.ts';
import type { SidAsOf } from './training-samples.ts';

export const CODEBOOK_VERSION = 1;
const NUM_LEVELS = 3;
/** Items encoded at once. */
const CHUNK = 8_192;

export interface TokenizerOptions {
  /** Vectors that a codebook is trained on, at most. */
  maxVectors: number;
  maxIterations: number;
  lastLevel: 'kmeans' | 'fsq';
  seed: number;
}

/** What one scenario's codebook is trained on and applied to. */
export class ItemVectors {
  readonly #log: WorldLog;
  readonly #dim: number;
  /** float32 [catalogue, dim] content embeddings as the log shows them. */
  readonly #embeddings: Float32Array;

  constructor(log: WorldLog) {
    this.#log = log;
    const { catalogue, spec } = log.world;
    this.#dim = spec.embeddingDim;
    this.#embeddings = new Float32Array(catalogue.size * this.#dim);
    for (let i = 0; i < catalogue.size; i++)
      this.#embeddings.set(catalogue.item(i, 0).embedding ?? [], i * this.#dim);
  }

  /** Vectors m of products or videos by index in the catalogue. */
  rows(indices: Int32Array): Vectors {
    const { catalogue } = this.#log.world;
    const first = indices[0]!;
    const dim = this.#dim * (first >= catalogue.numProducts ? 2 : 1);
    const data = new Float32Array(indices.length * dim);
    indices.forEach((index, row) => {
      const promoted = catalogue.promotes[index]!;
      const m =
        index < catalogue.numProducts
          ? this.#of(index)
          : videoVector(promoted < 0 ? null : this.#of(promoted), this.#of(index), this.#dim);
      data.set(m, row * dim);
    });
    return { data, numVectors: indices.length, dim };
  }

  /** Vectors m of versions of rooms; each sells something. */
  rooms(versions: readonly number[]): Vectors {
    const { rooms } = this.#log;
    const data = new Float32Array(versions.length * this.#dim);
    versions.forEach((version, row) => {
      const products = rooms.products(version);
      const m = roomVector(
        Array.from(products, (p) => this.#of(p)),
        products.indexOf(rooms.explaining(version)),
      );
      data.set(m!, row * this.#dim);
    });
    return { data, numVectors: versions.length, dim: this.#dim };
  }

  /** Length of a content embedding. */
  get dim(): number {
    return this.#dim;
  }

  /** Content of any item of the log: its own embedding, of a room as it opened what it sold. */
  contentOf(item: number): Float32Array {
    const { world, rooms } = this.#log;
    const { catalogue } = world;
    if (item < catalogue.size) return this.#of(item);
    const version = rooms.versionAt(item - catalogue.size, this.#log.facts(item).validFromMs);
    return version < 0 || rooms.products(version).length === 0
      ? new Float32Array(this.#dim)
      : this.rooms([version]).data;
  }

  #of(index: number): Float32Array {
    return this.#embeddings.subarray(index * this.#dim, (index + 1) * this.#dim);
  }
}

/** Codebooks by scenario, trained on what the log holds now. */
export async function trainCodebooks(
  log: WorldLog,
  vectors: ItemVectors,
  options: TokenizerOptions,
  print: (line: string) => void,
): Promise<Codebook[]> {
  const { catalogue, spec } = log.world;
  const cutoffMs = log.requests.timeMs.at(log.numRequests - 1);
  const sampled = (from: number, to: number): Int32Array =>
    sampleIndices(to - from, options.maxVectors, seededSource(options.seed)).map((i) => i + from);
  const versions = (): number[] => {
    const selling: number[] = [];
    for (let v = 0; v < log.rooms.numVersions; v++) if (log.rooms.products(v).length > 0) selling.push(v);
    const drawn = sampleIndices(selling.length, options.maxVectors, seededSource(options.seed));
    return Array.from(drawn, (i) => selling[i]!);
  };
  const codebooks: Codebook[] = [];
  for (const [scenario, numItems, data] of [
    ['product_card', catalogue.numProducts, () => vectors.rows(sampled(0, catalogue.numProducts))],
    [
      'short_video',
      catalogue.size - catalogue.numProducts,
      () => vectors.rows(sampled(catalogue.numProducts, catalogue.size)),
    ],
    ['live_stream', spec.liveRooms, () => vectors.rooms(versions())],
  ] as const) {
    if (numItems === 0) continue;
    const numCodes = codesForCatalogue(numItems, options.lastLevel);
    print(`codebook of ${scenario}: ${numItems} items, codes ${numCodes.join(' x ')}`);
    codebooks.push(
      await trainCodebook(data(), {
        scenario,
        version: CODEBOOK_VERSION,
        numCodes,
        lastLevel: options.lastLevel,
        cutoffMs,
        seed: options.seed,
        maxIterations: options.maxIterations,
      }),
    );
  }
  return codebooks;
}

/** Codes of all products and videos: int32 [catalogue, 3]. */
export async function encodeItems(
  log: WorldLog,
  vectors: ItemVectors,
  codebooks: readonly Codebook[],
): Promise<Int32Array> {
  const { catalogue } = log.world;
  const codes = new Int32Array(catalogue.size * NUM_LEVELS);
  for (const [scenario, from, to] of [
    ['product_card', 0, catalogue.numProducts],
    ['short_video', catalogue.numProducts, catalogue.size],
  ] as const) {
    const codebook = codebooks.find((c) => c.scenario === scenario);
    if (!codebook) continue;
    const encoder = await CodebookEncoder.open(codebook);
    for (let at = from; at < to; at += CHUNK) {
      const indices = Int32Array.from({ length: Math.min(CHUNK, to - at) }, (_, i) => at + i);
      codes.set(await encoder.encode(vectors.rows(indices)), at * NUM_LEVELS);
    }
    await encoder.close();
  }
  return codes;
}

/** Who has which SID when. */
export class SemanticIds {
  readonly numCodes: NumCodes;
  readonly codebooks: readonly Codebook[];
  readonly #log: WorldLog;
  readonly #vectors: ItemVectors;
  readonly #liveEncoder: CodebookEncoder | undefined;
  readonly #items: Int32Array;
  /** int32 [versions, 3], -1 where the room had ended. */
  #rooms = new Int32Array(0);
  #numRooms = 0;

  private constructor(
    log: WorldLog,
    vectors: ItemVectors,
    codebooks: readonly Codebook[],
    items: Int32Array,
    liveEncoder: CodebookEncoder | undefined,
  ) {
    this.#log = log;
    this.#vectors = vectors;
    this.#items = items;
    this.#liveEncoder = liveEncoder;
    this.codebooks = codebooks;
    this.numCodes = Object.fromEntries(codebooks.map((c) => [c.scenario, c.numCodes]));
  }

  /** @param items as `encodeItems` gave them */
  static async open(
    log: WorldLog,
    vectors: ItemVectors,
    codebooks: readonly Codebook[],
    items: Int32Array,
  ): Promise<SemanticIds> {
    const live = codebooks.find((c) => c.scenario === 'live_stream');
    return new SemanticIds(log, vectors, codebooks, items, live && (await CodebookEncoder.open(live)));
  }

  /** Encodes the versions of rooms that the log has taken since the last call. */
  async followRooms(): Promise<void> {
    const { rooms } = this.#log;
    const total = rooms.numVersions;
    if (total === this.#numRooms || !this.#liveEncoder) return;
    if (this.#rooms.length < total * NUM_LEVELS) {
      const grown = new Int32Array(Math.max(total, 2 * this.#numRooms) * NUM_LEVELS).fill(-1);
      grown.set(this.#rooms.subarray(0, this.#numRooms * NUM_LEVELS));
      this.#rooms = grown;
    }
    for (let from = this.#numRooms; from < total; from += CHUNK) {
      const versions: number[] = [];
      for (let v = from; v < Math.min(total, from + CHUNK); v++)
        if (rooms.products(v).length > 0) versions.push(v);
      if (versions.length === 0) continue;
      const codes = await this.#liveEncoder.encode(this.#vectors.rooms(versions));
      versions.forEach((version, i) => {
        this.#rooms.set(codes.subarray(i * NUM_LEVELS, (i + 1) * NUM_LEVELS), version * NUM_LEVELS);
      });
    }
    this.#numRooms = total;
  }

  /** Names the SIDs that tries are made of: of the catalogue, and of the rooms' versions so far. */
  get trieVersion(): string {
    const rooms = this.#rooms.subarray(0, this.#numRooms * NUM_LEVELS);
    return createHash('sha256').update(this.#items).update(rooms).digest('hex').slice(0, 12);
  }

  async close(): Promise<void> {
    await this.#liveEncoder?.close();
  }

  /** What a room had before it ended stays good enough for a history, as in the trainer's tables. */
  sidAsOf: SidAsOf = (item, timeMs) => {
    const { rooms, world } = this.#log;
    const room = item - world.catalogue.size;
    if (room < 0) return this.#sid(this.#log.scenarioOf(item), this.#items, item);
    let version = rooms.versionAt(room, timeMs);
    while (version >= 0 && this.#rooms[version * NUM_LEVELS]! < 0) version = rooms.previousVersion(version);
    return version < 0 ? null : this.#sid('live_stream', this.#rooms, version);
  };

  #sid(scenario: string, codes: Int32Array, row: number): Sid {
    const at = row * NUM_LEVELS;
    return {
      scenario,
      codebookVersion: CODEBOOK_VERSION,
      c1: codes[at]!,
      c2: codes[at + 1]!,
      c3: codes[at + 2]!,
    };
  }
}
