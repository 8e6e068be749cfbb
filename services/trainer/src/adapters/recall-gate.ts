/** The gate of the retriever: beam recall on held-back requests, the candidate beside the policy in use. */
import { setImmediate as afterOtherWork } from 'node:timers/promises';
import type { TrainingSample } from '@onemall/contracts';
import type { SidCodes } from '@onemall/features';
import { loadPolicy, type PolicyRuntime, type RequestTensors } from '@onemall/learning';
import type { Files, GateVerdict, MetricRow, ModelGate } from '../learner.ts';
import { type GateFigures, type GateLimit, gatePolicy } from '../stages/gate-policy.ts';
import { beamFinds, legalShare, type SidTree, sidTrees } from '../stages/measure-recall.ts';
import { HeldBackSlice } from '../state/held-back-slice.ts';

export interface HeldBackRequest {
  request: RequestTensors;
  target: SidCodes;
}

export interface RecallGateRules {
  /** Samples kept of each scenario. */
  perScenario: number;
  /** A figure over fewer requests is not judged. */
  minRequests: number;
  beamWidth: number;
  maxRecallFall: number;
  maxLegalityFall: number;
}

export interface RecallGateParts {
  rules: RecallGateRules;
  encode: (samples: readonly TrainingSample[]) => readonly HeldBackRequest[];
  /** The SIDs that exist now. */
  sidsNow: () => Iterable<SidCodes>;
}

const FIGURE = 'beam_recall';
const LEGALITY = 'legality';
/** Legality sorts all codes: a few requests and a narrow beam say enough, for it is a share of many SIDs. */
const LEGALITY_REQUESTS = 50;
const LEGALITY_BEAM = 10;
const figureOf = (scenario: string): string => `${FIGURE}.${scenario}`;

export class RecallGate implements ModelGate {
  readonly #parts: RecallGateParts;
  readonly #slice: HeldBackSlice<HeldBackRequest>;
  #published: PolicyRuntime | null = null;
  #judged: PolicyRuntime | null = null;

  constructor(parts: RecallGateParts) {
    this.#parts = parts;
    this.#slice = new HeldBackSlice(parts.rules.perScenario, parts.encode);
  }

  see(sample: TrainingSample): void {
    this.#slice.add(sample);
  }
  encodeWaiting(): void {
    this.#slice.encodeWaiting();
  }

  async compareWith(files: Files): Promise<void> {
    const before = this.#published;
    this.#published = await loadPolicy(files);
    await before?.close();
  }

  async judge(files: Files, stopping: AbortSignal): Promise<GateVerdict> {
    const { minRequests, maxRecallFall, maxLegalityFall } = this.#parts.rules;
    await this.#judged?.close();
    this.#judged = await loadPolicy(files);
    const samples = new Map([...this.#slice.samples].map(([scenario, kept]) => [scenario, [...kept]]));
    const count = [...samples.values()].reduce((sum, kept) => sum + kept.length, 0);
    if (count < minRequests)
      return {
        outcome: this.#published ? 'wait' : 'publish',
        reasons: [
          `${count} of ${minRequests} held-back requests have come since the start: recall is not measured yet`,
        ],
        figures: [],
      };
    const trees = sidTrees(
      [...this.#parts.sidsNow()].concat([...samples.values()].flat().map(({ target }) => target)),
    );
    const candidate = await this.#recall(this.#judged, samples, trees, stopping);
    const published = this.#published && (await this.#recall(this.#published, samples, trees, stopping));
    const limits = Object.keys(candidate).map(
      (figure): GateLimit => ({
        figure,
        maxFall: figure === LEGALITY ? maxLegalityFall : maxRecallFall,
      }),
    );
    const reasons = gatePolicy(candidate, published, limits);
    return {
      outcome: reasons.length > 0 ? 'refuse' : 'publish',
      reasons,
      figures: rowsOf(samples.keys(), candidate, published),
    };
  }

  async accepted(): Promise<void> {
    await this.#published?.close();
    this.#published = this.#judged;
    this.#judged = null;
  }

  /** Recall over all requests, and of each scenario that has enough of them. */
  async #recall(
    policy: PolicyRuntime,
    samples: ReadonlyMap<string, readonly HeldBackRequest[]>,
    trees: ReadonlyMap<string, SidTree>,
    stopping: AbortSignal,
  ): Promise<GateFigures> {
    const { beamWidth, minRequests } = this.#parts.rules;
    const figures: Record<string, number> = {};
    let found = 0;
    let count = 0;
    const legal: number[] = [];
    for (const [scenario, requests] of samples) {
      let here = 0;
      for (const { request, target } of requests) {
        stopping.throwIfAborted();
        if (await beamFinds(policy, request, target, trees.get(target.scenario)!, beamWidth)) here++;
        if (legal.length < LEGALITY_REQUESTS)
          legal.push(await legalShare(policy, request, trees.get(target.scenario)!, LEGALITY_BEAM));
        // A graph runs on this thread: what waits for it goes first.
        await afterOtherWork();
      }
      found += here;
      count += requests.length;
      if (requests.length >= minRequests) figures[figureOf(scenario)] = here / requests.length;
    }
    figures[FIGURE] = found / count;
    figures[LEGALITY] = legal.reduce((sum, share) => sum + share, 0) / legal.length;
    return figures;
  }

  async close(): Promise<void> {
    await this.#published?.close();
    await this.#judged?.close();
  }
}

function rowsOf(
  scenarios: Iterable<string>,
  candidate: GateFigures,
  published: GateFigures | null,
): MetricRow[] {
  return ['', ...scenarios].flatMap((scenario) => {
    const figure = scenario === '' ? FIGURE : figureOf(scenario);
    if (candidate[figure] === undefined) return [];
    return [
      {
        scenario,
        values: {
          [FIGURE]: candidate[figure],
          ...(scenario === '' && { [LEGALITY]: candidate[LEGALITY]! }),
          ...(published && { [`${FIGURE}_published`]: published[figure]! }),
        },
      },
    ];
  });
}
