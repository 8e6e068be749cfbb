/** The OneMall retrieval model on a log: trained in one pass over its positives, asked by the beam that serves. */
import {
  itemTensors,
  type RequestTensors,
  requestTensors,
  type SidCodes,
  type SidLayout,
  sidLayout,
} from '@onemall/features';
import {
  createRetrievalTrainer,
  type ItemTowerRuntime,
  type LevelCodes,
  loadItemTower,
  loadPolicy,
  type PolicyNormalizer,
  type PolicyRuntime,
  type RetrievalPreset,
  type RetrievalSample,
  type RetrievalTrainer,
  type RetrievalTrainerOptions,
  type SidChildren,
} from '@onemall/learning';
import type { SidTrie } from '@onemall/retriever/src/stages/build-trie.ts';
import { NO_EXCLUSION } from '@onemall/retriever/src/stages/exclude-sids.ts';
import { beamSearch, type FoundSids, type NodeWeights } from '@onemall/retriever/src/stages/search-beam.ts';
import { firstItem, type Shelves } from '@onemall/retriever/src/stages/serve-items.ts';
import { hashFraction } from '@onemall/service-kit';
import type { ScenarioName } from '@onemall/simulator/world';
import { startFromContent } from '@onemall/trainer/src/stages/start-from-content.ts';
import { type RunStore, tensorFiles, tensorsOf } from './adapters/run-store.ts';
import { ExistingSids } from './existing-sids.ts';
import type { AskedRequest, ListModel } from './lists.ts';
import { featuresAsOf } from './samples.ts';
import { CODEBOOK_VERSION, type SemanticIds } from './semantic-ids.ts';
import { Popularity } from './simple-lists.ts';
import { SCENARIOS, type WorldLog } from './world-log.ts';

export interface OneMallRun {
  name: string;
  options: Omit<
    RetrievalTrainerOptions,
    'scenarios' | 'numCodes' | 'normalizer' | 'preset' | 'historyLength'
  > & {
    preset: RetrievalPreset;
    historyLength: number;
  };
  normalizer: PolicyNormalizer;
  /** Passes over the positives. */
  epochs: number;
  /** Whether tables and heads begin as the codebooks' centroids. */
  contentStart: boolean;
  /** Steps between checkpoints. */
  checkpointEvery: number;
}

const LIVE: readonly string[] = ['live_stream'];
const SMOOTHED_STEPS = 200;
/** While training, rooms and popularity of some minutes ago are as good as those of now, and much cheaper to keep. */
const TRAINING_GRID_MS = 120_000;

/** Turns rows of a log into what the trainer takes. */
export class SampleEncoder {
  readonly layout: SidLayout;
  readonly #log: WorldLog;
  readonly #sids: SemanticIds;
  readonly #historyLength: number;
  readonly #normalizer: PolicyNormalizer;
  #existing: ExistingSids;

  constructor(
    log: WorldLog,
    sids: SemanticIds,
    historyLength: number,
    normalizer: PolicyNormalizer = 'codes',
  ) {
    this.#log = log;
    this.#sids = sids;
    this.#historyLength = historyLength;
    this.#normalizer = normalizer;
    this.#existing = new ExistingSids(log, sids, new Popularity(log), TRAINING_GRID_MS);
    this.layout = sidLayout(SCENARIOS, sids.numCodes);
  }

  request(request: number): RequestTensors {
    const log = this.#log;
    const requestTimeMs = log.requests.timeMs.at(request);
    const history = log.historyBefore(request, this.#historyLength);
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

function childrenFor(
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

/** How far a training is. */
interface Progress {
  epoch: number;
  /** Positives taken in this epoch. */
  taken: number;
  seconds: number;
  scalars: Record<string, number>;
}

/** Opens a trainer with the weights of the run's checkpoint, if there is one. */
export async function openTrainer(run: OneMallRun, sids: SemanticIds, store: RunStore) {
  const { numCodes } = sids;
  const trainer = await createRetrievalTrainer({
    ...run.options,
    scenarios: SCENARIOS,
    numCodes,
    normalizer: run.normalizer === 'codes' ? 'codes' : 'trie',
  });
  const name = `${run.name}/checkpoint`;
  const files = await store.files(name);
  let progress: Progress = { epoch: 0, taken: 0, seconds: 0, scalars: {} };
  if (files) {
    progress = store.value<Progress>(name)!;
    await trainer.restore({ tensors: tensorsOf(files), scalars: progress.scalars });
  } else if (run.contentStart) {
    const state = await trainer.state();
    startFromContent(
      state,
      sids.codebooks.map((codebook) => ({ codebook, fromTower: false })),
      { scenarios: SCENARIOS, numCodes },
      run.options.seed,
    );
    await trainer.restore(state);
  }
  return { trainer, progress };
}

/**
 * Trains, or goes on with, the run on these rows, request by request, and returns its policy.
 * @param rows of the positives, see `positivesBefore`
 */
export async function trainOneMall(
  log: WorldLog,
  sids: SemanticIds,
  rows: Int32Array,
  run: OneMallRun,
  store: RunStore,
  print: (line: string) => void,
): Promise<{ policy: PolicyRuntime; tower: ItemTowerRuntime }> {
  const loaded = async (files: ReadonlyMap<string, Uint8Array>) => ({
    policy: await loadPolicy(files),
    tower: await loadItemTower(files),
  });
  const done = await store.files(`${run.name}/policy`);
  if (done) return loaded(done);
  const { trainer, progress } = await openTrainer(run, sids, store);
  try {
    await takeSteps(
      trainer,
      progress,
      new SampleEncoder(log, sids, trainer.historyLength, run.normalizer),
      passOrder(log, rows),
      run,
      store,
      print,
    );
    const files = await trainer.exportPolicy({
      policyVersion: run.name,
      codebookVersions: Object.fromEntries(SCENARIOS.map((s) => [s, CODEBOOK_VERSION])),
      beamWidths: [64, 512],
      normalizer: run.normalizer,
    });
    await store.setFiles(`${run.name}/policy`, files, { step: trainer.steps, seconds: progress.seconds });
    return await loaded(files);
  } finally {
    await trainer.close();
  }
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

async function takeSteps(
  trainer: RetrievalTrainer,
  progress: Progress,
  encoder: SampleEncoder,
  rows: Int32Array,
  run: OneMallRun,
  store: RunStore,
  print: (line: string) => void,
): Promise<void> {
  const startMs = performance.now() - progress.seconds * 1000;
  const save = async (): Promise<void> => {
    const { tensors, scalars } = await trainer.state();
    progress.seconds = (performance.now() - startMs) / 1000;
    await store.setFiles(`${run.name}/checkpoint`, tensorFiles(tensors), { ...progress, scalars });
    print(`checkpoint of ${run.name} at step ${trainer.steps}, ${progress.seconds.toFixed(0)} s`);
  };
  const report = new StepReport(run.name, print);
  for (; progress.epoch < run.epochs; progress.epoch++, progress.taken = 0) {
    let before: ReturnType<RetrievalTrainer['step']> | undefined;
    encoder.startPass();
    while (progress.taken < rows.length) {
      const samples: RetrievalSample[] = [];
      while (samples.length < trainer.batchSize && progress.taken < rows.length) {
        const sample = encoder.positive(rows[progress.taken++]!);
        if (sample) samples.push(sample);
      }
      // the next batch is made while the worker computes this one
      if (before) report.add(await before);
      before = samples.length > 0 ? trainer.step({ samples }) : undefined;
      before?.catch(() => undefined);
      if (before && (trainer.steps + 1) % run.checkpointEvery === 0) {
        report.add(await before);
        before = undefined;
        await save();
      }
    }
    if (before) report.add(await before);
  }
  await save();
}

class StepReport {
  readonly #name: string;
  readonly #print: (line: string) => void;
  #ntp: number[] = [];

  constructor(name: string, print: (line: string) => void) {
    this.#name = name;
    this.#print = print;
  }
  add({ step, loss, stepMs }: Awaited<ReturnType<RetrievalTrainer['step']>>): void {
    this.#ntp.push(loss.ntp);
    if (step % SMOOTHED_STEPS !== 0) return;
    const mean = this.#ntp.reduce((a, b) => a + b, 0) / this.#ntp.length;
    this.#print(
      `${this.#name} step ${step}: next-token loss ${mean.toFixed(3)} (before the updates), ${stepMs.toFixed(0)} ms`,
    );
    this.#ntp = [];
  }
}

/** All SIDs of the catalogue as tries, and the items behind them; live rooms as of any moment that the log has reached. */
export class Shelf {
  readonly #log: WorldLog;
  readonly #popularity: Popularity;
  readonly #existing: ExistingSids;

  constructor(log: WorldLog, sids: SemanticIds, popularity: Popularity) {
    this.#log = log;
    this.#existing = new ExistingSids(log, sids, popularity);
    this.#popularity = popularity;
  }

  /**
   * The items behind SIDs, best first: a SID's probability falls to its items by their share of its popularity, so that rare
   * near-duplicates on a good SID do not come before what is popular on the next.
   */
  itemsOf({ scenario, requestTimeMs }: AskedRequest, found: FoundSids, depth: number): Int32Array {
    const { items } = this.#existing.asOf(scenario, requestTimeMs);
    const scored: { item: number; score: number }[] = [];
    for (let i = 0; i < found.size; i++) {
      const own = items.get(found.packed[i]!) ?? [];
      const seen = own.map((item) => 1 + this.#popularity.of(item));
      const total = seen.reduce((a, b) => a + b, 0);
      own.forEach((item, at) => {
        scored.push({ item, score: found.scores[i]! + Math.log(seen[at]! / total) });
      });
    }
    scored.sort((a, b) => b.score - a.score || a.item - b.item);
    return Int32Array.from(scored.slice(0, depth), ({ item }) => item);
  }

  /** What may follow a SID's codes, for a trainer whose policy searches this shelf. */
  children(normalizer: PolicyNormalizer, sid: SidCodes, timeMs: number): SidChildren {
    return childrenFor(normalizer, this.#existing, sid, timeMs);
  }

  /** Candidates as of a moment. */
  of(scenario: ScenarioName, timeMs: number): { trie: SidTrie; weights: NodeWeights; shelves: Shelves } {
    const { trie, weights, items } = this.#existing.asOf(scenario, timeMs);
    return {
      trie,
      weights,
      shelves: {
        itemsOf: (packed) => (items.get(packed) ?? []).map((item) => this.#log.itemId(item)),
        standing: (itemId) => {
          const item = this.#log.itemNumber(itemId);
          const seen = this.#popularity.of(item);
          return { popularity: seen, seen, freshMs: this.#log.facts(item).validFromMs };
        },
      },
    };
  }
}

/** The policy behind the beam of the retriever. */
export class OneMallLists implements ListModel {
  readonly name: string;
  readonly #policy: PolicyRuntime;
  readonly #encoder: SampleEncoder;
  readonly #shelf: Shelf;
  readonly #normalizer: PolicyNormalizer;

  constructor(
    name: string,
    log: WorldLog,
    sids: SemanticIds,
    shelf: Shelf,
    policy: PolicyRuntime,
    normalizer: PolicyNormalizer,
  ) {
    this.name = name;
    this.#policy = policy;
    this.#shelf = shelf;
    this.#normalizer = normalizer;
    this.#encoder = new SampleEncoder(log, sids, policy.manifest.historyLength);
  }

  /** The item that a SID stands for, as the retriever would serve it. */
  firstItem({ scenario, requestTimeMs }: AskedRequest, packed: number): string | null {
    return firstItem(this.#shelf.of(scenario, requestTimeMs).shelves, packed, 'popularity');
  }

  /** SIDs of the beam, best first. */
  async beam({ request, scenario, requestTimeMs }: AskedRequest, width: number): Promise<FoundSids> {
    const context = await this.#policy.encode(this.#encoder.request(request));
    const { trie, weights } = this.#shelf.of(scenario, requestTimeMs);
    const normalizer = this.#normalizer === 'popular' ? weights : this.#normalizer;
    const decoding = this.#policy.begin(context);
    try {
      return await beamSearch(trie, decoding, width, NO_EXCLUSION, normalizer);
    } finally {
      decoding.release();
    }
  }

  async rank(asked: AskedRequest, depth: number): Promise<Int32Array> {
    const found = await this.beam(asked, depth);
    return this.#shelf.itemsOf(asked, found, depth);
  }
}
