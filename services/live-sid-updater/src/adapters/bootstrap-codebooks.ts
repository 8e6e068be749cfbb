/** Trains the first codebook of each scenario from the items, in a thread, and publishes it. */
import type { Codebook as CodebookRecord } from '@onemall/contracts';
import { brokenLimits, LIVE_STREAM, namedMetrics, PRODUCT_CARD, USUAL_LIMITS } from '@onemall/quantization';
import { type TrainedCodebook, trainInThread } from '@onemall/quantization/thread';
import { SeededRandom, type ServiceContext } from '@onemall/service-kit';
import type { UpdaterConfig } from '../config.ts';
import { bootstrapCodes, planBootstrap } from '../stages/plan-bootstrap.ts';
import type { UpdaterState } from '../state/updater-state.ts';
import { putFirstCodebook } from './codebook-store.ts';

const FIRST_VERSION = 1;

export class CodebookBootstrap {
  readonly #context: ServiceContext<UpdaterConfig>;
  readonly #state: UpdaterState;
  readonly #enoughSinceMs = new Map<string, number>();
  readonly #told = new Map<string, string>();
  #training: { record: Omit<CodebookRecord, 'uri' | 'sha256' | 'metrics'>; startedMs: number } | undefined;
  #trained: TrainedCodebook | undefined;
  #thread: Promise<void> = Promise.resolve();

  constructor(context: ServiceContext<UpdaterConfig>, state: UpdaterState) {
    this.#context = context;
    this.#state = state;
  }

  /** Starts a training that is due; @returns a record to publish when one has ended and its artifact is stored. */
  async step(): Promise<CodebookRecord | null> {
    if (this.#training) return this.#finish();
    const { clock, config, log } = this.#context;
    for (const plan of planBootstrap(this.#state, this.#enoughSinceMs, config, clock.nowMs())) {
      if (plan.kind === 'train') {
        await this.#start(plan.scenario);
        break;
      }
      if (this.#told.get(plan.scenario) !== plan.why) {
        this.#told.set(plan.scenario, plan.why);
        log.info({ scenario: plan.scenario, why: plan.why }, 'the first codebook waits');
      }
    }
    return null;
  }

  async #start(scenario: string): Promise<void> {
    const { clock, config, log, fail, stopping } = this.#context;
    const { catalogue } = this.#state;
    await catalogue.embedTexts(catalogue.ids(scenario === LIVE_STREAM ? PRODUCT_CARD : scenario));
    const vectors = catalogue.trainingVectors(
      scenario,
      new SeededRandom(config.seed),
      config.maxTrainingVectors,
    );
    if (!vectors) return;
    const numCodes = bootstrapCodes(this.#state, scenario, config.lastLevel);
    const nowMs = clock.nowMs();
    const cutoffMs = this.#state.catalogue.newestMs(scenario);
    const task = {
      scenario,
      version: FIRST_VERSION,
      numCodes,
      lastLevel: config.lastLevel,
      cutoffMs,
      seed: config.seed,
      ...(catalogue.textEncoderName !== null && { textEncoder: catalogue.textEncoderName }),
    };
    log.info({ ...task, vectors: vectors.numVectors, dim: vectors.dim }, 'training the first codebook');
    this.#training = {
      record: {
        scenario,
        codebookVersion: FIRST_VERSION,
        numCodes: [...numCodes],
        dim: vectors.dim,
        towerVersion: null,
        towerUri: null,
        oldestVersion: 1,
        cutoffMs,
        createdMs: nowMs,
      },
      startedMs: nowMs,
    };
    this.#thread = trainInThread({ ...task, vectors }, { signal: stopping }).then(
      (trained) => {
        this.#trained = trained;
      },
      (error) => {
        if (!stopping.aborted) fail(error);
      },
    );
  }

  /** Waits for a training that was told to stop: the process must not end inside it. */
  stopped(): Promise<void> {
    return this.#thread;
  }

  async #finish(): Promise<CodebookRecord | null> {
    const training = this.#training!;
    const trained = this.#trained;
    if (!trained) return null;
    const { artifacts, clock, log } = this.#context;
    const { scenario } = training.record;
    this.#training = undefined;
    this.#trained = undefined;
    // Another process may have been quicker.
    if (this.#state.codebookRecords.has(scenario)) return null;
    const metrics = namedMetrics(trained.metrics);
    // Published all the same: without a first codebook nothing begins, and the next version has to keep the limits.
    const broken = brokenLimits(trained.metrics, USUAL_LIMITS);
    if (broken.length > 0)
      log.warn({ scenario, broken }, 'the first codebook breaks limits that later versions have to keep');
    const ref = await putFirstCodebook(artifacts, scenario, FIRST_VERSION, trained.files);
    log.info(
      { scenario, tookMs: clock.nowMs() - training.startedMs, metrics },
      'the first codebook is trained',
    );
    return { ...training.record, ...ref, metrics, createdMs: clock.nowMs() };
  }
}
