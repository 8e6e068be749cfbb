/** Rows of a log as what the trainer of OneMall takes, and the order in which a pass takes them. */
import {
  itemTensors,
  type RequestTensors,
  requestTensors,
  type SidCodes,
  type SidLayout,
  sidLayout,
} from '@onemall/features';
import type { LevelCodes, PolicyNormalizer, RetrievalSample, SidChildren } from '@onemall/learning';
import { hashFraction } from '@onemall/service-kit';
import { Popularity } from '../log/popularity.ts';
import { SCENARIOS, type WorldLog } from '../log/world-log.ts';
import { ExistingSids } from './existing-sids.ts';
import type { SemanticIds } from './semantic-ids.ts';
import { featuresAsOf } from './training-samples.ts';

const LIVE: readonly string[] = ['live_stream'];

/** While training, rooms and popularity of some minutes ago are as good as those of now, and much cheaper to keep. */
const TRAINING_GRID_MS = 120_000;

/** What a model reads of a user: all that is kept, or clicks alone. */
export type HistoryKinds = 'all' | 'clicks';

/** Turns rows of a log into what the trainer takes. */
export class SampleEncoder {
  readonly layout: SidLayout;
  readonly #log: WorldLog;
  readonly #sids: SemanticIds;
  readonly #historyLength: number;
  readonly #normalizer: PolicyNormalizer;
  readonly #reads: HistoryKinds;
  #existing: ExistingSids;

  constructor(
    log: WorldLog,
    sids: SemanticIds,
    historyLength: number,
    normalizer: PolicyNormalizer = 'codes',
    reads: HistoryKinds = 'all',
  ) {
    this.#log = log;
    this.#sids = sids;
    this.#historyLength = historyLength;
    this.#normalizer = normalizer;
    this.#reads = reads;
    this.#existing = new ExistingSids(log, sids, new Popularity(log), TRAINING_GRID_MS);
    this.layout = sidLayout(SCENARIOS, sids.numCodes);
  }

  request(request: number): RequestTensors {
    const log = this.#log;
    const requestTimeMs = log.requests.timeMs.at(request);
    const all = log.historyBefore(request, this.#historyLength);
    const history = this.#reads === 'all' ? all : { ...all, exposures: [], buys: [] };
    const context = { scenario: log.scenario(request), requestTimeMs, history };
    return requestTensors(context, this.#lookup(requestTimeMs), {
      historyLength: this.#historyLength,
      layout: this.layout,
    });
  }

  /** @param row of a clicked exposure; null where its item has no SID */
  positive(row: number): RetrievalSample | null {
    const log = this.#log;
    const request = log.exposures.request.at(row);
    const item = log.exposures.item.at(row);
    const timeMs = log.requests.timeMs.at(request);
    const target = this.#sids.sidAsOf(item, timeMs);
    if (!target) return null;
    const described = {
      scenario: target.scenario,
      features: featuresAsOf(log, item, timeMs),
      sid: target,
    };
    return {
      request: this.request(request),
      target,
      item: itemTensors(described, this.#lookup(timeMs), { layout: this.layout, liveScenarios: LIVE }),
      itemId: log.itemId(item),
      ...(this.#normalizer !== 'codes' && {
        children: childrenFor(this.#normalizer, this.#existing, target, timeMs),
      }),
    };
  }

  /** Positives may begin anew with the oldest: within a pass their requests must not go back. */
  startPass(): void {
    this.#existing = new ExistingSids(this.#log, this.#sids, new Popularity(this.#log), TRAINING_GRID_MS);
  }

  #lookup =
    (timeMs: number) =>
    (itemId: string): SidCodes | null =>
      this.#sids.sidAsOf(this.#log.itemNumber(itemId), timeMs);
}

export function childrenFor(
  normalizer: PolicyNormalizer,
  existing: ExistingSids,
  target: SidCodes,
  timeMs: number,
): SidChildren {
  const children = existing.children(target, timeMs);
  if (normalizer === 'popular') return children;
  const bare = ({ codes }: LevelCodes): LevelCodes => ({ codes });
  return [bare(children[0]), bare(children[1]), bare(children[2])];
}

/**
 * By the grid's span of the request, so that popularity as of it only ever goes on, and mixed within a span: the clicks of one page
 * beside each other would be each other's negatives in the contrast.
 */
export function passOrder(log: WorldLog, rows: Int32Array): Int32Array {
  const spanOf = (row: number): number =>
    Math.floor(log.requests.timeMs.at(log.exposures.request.at(row)) / TRAINING_GRID_MS);
  const keyed = Array.from(rows, (row) => ({ row, span: spanOf(row), at: hashFraction(`pass:${row}`) }));
  keyed.sort((a, b) => a.span - b.span || a.at - b.at);
  return Int32Array.from(keyed, ({ row }) => row);
}
