/**
 * The dense head of the same policy as a list of its own: what the user looks for at BOS against f_item of every candidate. The
 * contrast was trained with log-q correction, so that its scores leave popularity out; the list puts it back.
 */
import { itemTensors } from '@onemall/features';
import type { ItemTowerRuntime, PolicyNormalizer, PolicyRuntime } from '@onemall/learning';
import { candidatesOf, type Popularity } from '../log/popularity.ts';
import type { SCENARIOS, WorldLog } from '../log/world-log.ts';
import { type HistoryKinds, SampleEncoder } from '../samples/sample-encoder.ts';
import type { SemanticIds } from '../samples/semantic-ids.ts';
import { featuresAsOf } from '../samples/training-samples.ts';
import type { AskedRequest, ListModel } from './list-model.ts';
import { topOf } from './simple-lists.ts';

/** Items embedded at once. */
const CHUNK = 8_192;
const LIVE = 'live_stream';

/** f_item of all candidates: of cards and videos once, of each version of a room when it is first asked for. */
export class ItemVectorsOf {
  readonly dim: number;
  readonly #log: WorldLog;
  readonly #sids: SemanticIds;
  readonly #tower: ItemTowerRuntime;
  readonly #encoder: SampleEncoder;
  readonly #known = new Map<string, Float32Array>();
  readonly #rooms = new Map<string, Float32Array>();

  constructor(log: WorldLog, sids: SemanticIds, tower: ItemTowerRuntime, normalizer: PolicyNormalizer) {
    this.dim = tower.dim;
    this.#log = log;
    this.#sids = sids;
    this.#tower = tower;
    this.#encoder = new SampleEncoder(log, sids, tower.manifest.historyLength, normalizer);
  }

  /** float32 [candidates, dim] in the order of `candidatesOf`. */
  async of(scenario: (typeof SCENARIOS)[number], timeMs: number): Promise<Float32Array> {
    const candidates = candidatesOf(this.#log, scenario);
    if (scenario === LIVE) return this.#ofRooms(candidates, timeMs);
    const known = this.#known.get(scenario);
    if (known) return known;
    const vectors = new Float32Array(candidates.length * this.dim);
    for (let at = 0; at < candidates.length; at += CHUNK)
      vectors.set(await this.#embed(candidates.subarray(at, at + CHUNK), timeMs), at * this.dim);
    this.#known.set(scenario, vectors);
    return vectors;
  }

  async #ofRooms(rooms: Int32Array, timeMs: number): Promise<Float32Array> {
    const { catalogue } = this.#log.world;
    const keys = Array.from(
      rooms,
      (room) => `${room}:${this.#log.rooms.versionAt(room - catalogue.size, timeMs)}`,
    );
    const missing = keys.flatMap((key, i) => (this.#rooms.has(key) ? [] : [i]));
    const fresh = await this.#embed(
      Int32Array.from(missing, (i) => rooms[i]!),
      timeMs,
    );
    missing.forEach((i, at) => {
      this.#rooms.set(keys[i]!, fresh.slice(at * this.dim, (at + 1) * this.dim));
    });
    const vectors = new Float32Array(rooms.length * this.dim);
    keys.forEach((key, i) => {
      vectors.set(this.#rooms.get(key)!, i * this.dim);
    });
    return vectors;
  }

  #embed(items: Int32Array, timeMs: number): Promise<Float32Array> {
    const log = this.#log;
    return this.#tower.embed(
      Array.from(items, (item) => {
        const scenario = log.scenarioOf(item);
        const described = {
          scenario,
          features: featuresAsOf(log, item, timeMs),
          sid: this.#sids.sidAsOf(item, timeMs),
        };
        const sidOf = (itemId: string) => this.#sids.sidAsOf(log.itemNumber(itemId), timeMs);
        return itemTensors(described, sidOf, { layout: this.#encoder.layout, liveScenarios: [LIVE] });
      }),
    );
  }
}

export class DenseLists implements ListModel {
  readonly name: string;
  readonly #log: WorldLog;
  readonly #policy: PolicyRuntime;
  readonly #encoder: SampleEncoder;
  readonly #vectors: ItemVectorsOf;
  readonly #popularity: Popularity;
  readonly #temperature: number;

  /** @param temperature of the contrast in training */
  constructor(
    name: string,
    log: WorldLog,
    sids: SemanticIds,
    policy: PolicyRuntime,
    vectors: ItemVectorsOf,
    popularity: Popularity,
    temperature: number,
    reads: HistoryKinds,
  ) {
    this.name = name;
    this.#log = log;
    this.#policy = policy;
    this.#encoder = new SampleEncoder(log, sids, policy.manifest.historyLength, 'codes', reads);
    this.#vectors = vectors;
    this.#popularity = popularity;
    this.#temperature = temperature;
  }

  async rank({ request, scenario, requestTimeMs }: AskedRequest, depth: number): Promise<Int32Array> {
    const candidates = candidatesOf(this.#log, scenario);
    const vectors = await this.#vectors.of(scenario, requestTimeMs);
    const decoding = this.#policy.begin(await this.#policy.encode(this.#encoder.request(request)));
    try {
      await decoding.first();
      const { user } = decoding;
      if (!user) throw new Error(`${this.name}: this policy has no dense head; train it with contrastAt bos`);
      const scores = new Float64Array(candidates.length);
      for (let c = 0; c < candidates.length; c++) {
        let dot = 0;
        for (let d = 0, at = c * user.length; d < user.length; d++) dot += user[d]! * vectors[at + d]!;
        scores[c] = dot / this.#temperature + Math.log(1 + this.#popularity.of(candidates[c]!));
      }
      return topOf(scores, depth).map((c) => candidates[c]!);
    } finally {
      decoding.release();
    }
  }
}
