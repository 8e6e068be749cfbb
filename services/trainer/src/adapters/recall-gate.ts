/** The gate of the retriever: beam recall on held-back requests, the candidate beside the policy in use. */
import { setImmediate as afterOtherWork } from 'node:timers/promises';
import type { StreamedSample } from '@onemall/contracts';
import type { SidCodes } from '@onemall/features';
import { loadPolicy, type PolicyRuntime, type RequestTensors } from '@onemall/learning';
import type { Files, GateVerdict, MetricRow, ModelGate } from '../learner.ts';
import { differenceError, type GateFigures, type GateLimit, gatePolicy } from '../stages/gate-policy.ts';
import { beamFinds, isIn, legalShare, type SidTree, sidTrees } from '../stages/measure-recall.ts';
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

/** Requests and SIDs in one set of codebook versions. */
export interface MeasuredSide {
  codebookVersions: Readonly<Record<string, number>>;
  /** null for a request that these versions cannot be asked about. */
  encode: (sample: StreamedSample) => HeldBackRequest | null;
  /** The SIDs that can be retrieved now. */
  sidsNow: () => Iterable<SidCodes>;
}

export interface RecallGateParts {
  rules: RecallGateRules;
  own: MeasuredSide;
  /** Of the policy in use where it has other codebook versions than the ones that are judged: until one of these passes. */
  inUse?: MeasuredSide;
}

const FIGURE = 'beam_recall';
const LEGALITY = 'legality';
/** Legality sorts all codes: a few requests, in equal parts of the scenarios, and a narrow beam say enough, for it is a share of many SIDs. */
const LEGALITY_REQUESTS = 50;
const LEGALITY_BEAM = 10;
/** The first policies have much the same beam for everyone: one SID in it more or less moves the share by tenths. */
const LEGALITY_LEARNED = 0.2;
const figureOf = (figure: string, scenario: string): string =>
  scenario === '' ? figure : `${figure}.${scenario}`;

export class RecallGate implements ModelGate {
  readonly #rules: RecallGateRules;
  readonly #own: Slice;
  #inUse: Slice;
  #published: PolicyRuntime | null = null;
  #judged: PolicyRuntime | null = null;

  constructor({ rules, own, inUse }: RecallGateParts) {
    this.#rules = rules;
    this.#own = new Slice(rules.perScenario, own);
    this.#inUse = inUse ? new Slice(rules.perScenario, inUse) : this.#own;
  }

  get comparesWith(): Readonly<Record<string, number>> {
    return this.#inUse.side.codebookVersions;
  }
  see(sample: StreamedSample): void {
    for (const slice of new Set([this.#own, this.#inUse])) slice.add(sample);
  }
  encodeWaiting(): void {
    for (const slice of new Set([this.#own, this.#inUse])) slice.encodeWaiting();
  }

  async compareWith(files: Files): Promise<void> {
    const before = this.#published;
    this.#published = await loadPolicy(files);
    await before?.close();
  }

  async judge(files: Files, stopping: AbortSignal): Promise<GateVerdict> {
    const { minRequests, maxRecallFall, maxLegalityFall } = this.#rules;
    await this.#judged?.close();
    this.#judged = await loadPolicy(files);
    const count = Math.min(this.#own.size, this.#inUse.size);
    if (count < minRequests)
      return {
        outcome: this.#published ? 'wait' : 'publish',
        reasons: [
          `${count} of ${minRequests} held-back requests have come since the start: recall is not measured yet`,
        ],
        figures: [],
      };
    const own = this.#own.taken();
    const candidate = await this.#recall(this.#judged, own, stopping);
    const published =
      this.#published &&
      (await this.#recall(this.#published, this.#inUse === this.#own ? own : this.#inUse.taken(), stopping));
    const paired = this.#inUse === this.#own;
    const limits = Object.keys(candidate).map((figure): GateLimit => {
      const before = published?.[figure];
      const fallError = before ? differenceError(before, candidate[figure]!, paired) : 0;
      return figure === LEGALITY || figure.startsWith(`${LEGALITY}.`)
        ? { figure, maxFall: maxLegalityFall, fallError, fallsFrom: LEGALITY_LEARNED }
        : { figure, maxFall: maxRecallFall, fallError };
    });
    const [now, before] = [meansOf(candidate), published && meansOf(published)];
    const reasons = gatePolicy(now, before, limits);
    return {
      outcome: reasons.length > 0 ? 'refuse' : 'publish',
      reasons,
      figures: rowsOf(own.samples.keys(), now, before),
    };
  }

  async accepted(): Promise<void> {
    await this.#published?.close();
    this.#published = this.#judged;
    this.#judged = null;
    this.#inUse = this.#own;
  }

  /** By request: recall (1 or 0), and of some of them legality; over all scenarios and of each that has enough requests. */
  async #recall(
    policy: PolicyRuntime,
    { samples, existing, searched }: Measured,
    stopping: AbortSignal,
  ): Promise<ByRequest> {
    const { beamWidth, minRequests } = this.#rules;
    const figures: ByRequest = {};
    const all = { found: [] as number[], legal: [] as number[] };
    const ofEach = Math.ceil(LEGALITY_REQUESTS / samples.size);
    for (const [scenario, requests] of samples) {
      const found: number[] = [];
      const legal: number[] = [];
      for (const { request, target } of requests) {
        stopping.throwIfAborted();
        const finds = await beamFinds(policy, request, target, searched.get(target.scenario)!, beamWidth);
        found.push(finds ? 1 : 0);
        if (legal.length < ofEach)
          legal.push(await legalShare(policy, request, existing.get(target.scenario), LEGALITY_BEAM));
        // A graph runs on this thread: what waits for it goes first.
        await afterOtherWork();
      }
      all.found.push(...found);
      all.legal.push(...legal);
      if (requests.length < minRequests) continue;
      figures[figureOf(FIGURE, scenario)] = found;
      figures[figureOf(LEGALITY, scenario)] = legal;
    }
    figures[FIGURE] = all.found;
    figures[LEGALITY] = all.legal;
    return figures;
  }

  async close(): Promise<void> {
    await this.#published?.close();
    await this.#judged?.close();
  }
}

/** Figures of each request by name, in the order of the slice. */
type ByRequest = Record<string, readonly number[]>;

const meansOf = (figures: ByRequest): GateFigures =>
  Object.fromEntries(
    Object.entries(figures).map(([name, values]) => [
      name,
      values.reduce((a, b) => a + b, 0) / values.length,
    ]),
  );

/** What one measurement asks, as of its beginning. */
interface Measured {
  samples: ReadonlyMap<string, readonly HeldBackRequest[]>;
  /** The SIDs that can be retrieved. */
  existing: ReadonlyMap<string, SidTree>;
  /** With the targets that are gone by now: the beam must be able to find what users took. */
  searched: ReadonlyMap<string, SidTree>;
}

class Slice extends HeldBackSlice<HeldBackRequest> {
  readonly side: MeasuredSide;
  constructor(perScenario: number, side: MeasuredSide) {
    super(perScenario, side.encode);
    this.side = side;
  }

  taken(): Measured {
    const samples = new Map([...this.samples].map(([scenario, kept]) => [scenario, [...kept]]));
    const targets = [...samples.values()].flat().map(({ target }) => target);
    const now = [...this.side.sidsNow()];
    const existing = sidTrees(now);
    const gone = targets.filter((target) => !isIn(existing.get(target.scenario), target));
    return { samples, existing, searched: gone.length === 0 ? existing : sidTrees(now.concat(gone)) };
  }
}

function rowsOf(
  scenarios: Iterable<string>,
  candidate: GateFigures,
  published: GateFigures | null,
): MetricRow[] {
  return ['', ...scenarios].flatMap((scenario) => {
    const figure = figureOf(FIGURE, scenario);
    if (candidate[figure] === undefined) return [];
    return [
      {
        scenario,
        values: {
          [FIGURE]: candidate[figure],
          [LEGALITY]: candidate[figureOf(LEGALITY, scenario)]!,
          ...(published && { [`${FIGURE}_published`]: published[figure]! }),
        },
      },
    ];
  });
}
