/** Waits until every configured scenario has a codebook, and tells of newer ones later. */
import type { Codebook } from '@onemall/contracts';
import type { KafkaIo, TableReader } from '@onemall/kafka-io';
import type { Clock, Logger, StageMeter } from '@onemall/service-kit';
import type { Codebooks } from '../learner.ts';

const REMIND_MS = 10_000;

export class CodebookWatch {
  readonly #newest = new Map<string, Codebook>();
  readonly #scenarios: readonly string[];
  readonly #log: Logger;
  readonly #meter: StageMeter;
  #table: TableReader | undefined;
  #changed = Promise.withResolvers<void>();
  /** What the weights belong to, once chosen. */
  #trained: Codebooks | null = null;

  private constructor(scenarios: readonly string[], log: Logger, meter: StageMeter) {
    this.#scenarios = scenarios;
    this.#log = log;
    this.#meter = meter;
  }

  static async open(
    io: KafkaIo,
    scenarios: readonly string[],
    log: Logger,
    meter: StageMeter,
    onError: (error: unknown) => void,
  ): Promise<CodebookWatch> {
    const watch = new CodebookWatch(scenarios, log, meter);
    watch.#table = await io.openTable({
      topic: 'codebooks',
      onRecord: ({ value }) => value && watch.#take(value),
      onError,
      onDeadLetter: (reason) => meter.recordDeadLetter(reason),
    });
    await watch.#table.readToEnd();
    return watch;
  }

  #take(codebook: Codebook): void {
    const { scenario, codebookVersion, numCodes } = codebook;
    if (numCodes.length !== 3 || numCodes.some((k) => !Number.isInteger(k) || k < 1)) {
      this.#log.error(
        { codebook },
        `codebook of ${scenario} has ${numCodes.length} levels, expected 3: ignored`,
      );
      return;
    }
    if (codebookVersion < (this.#newest.get(scenario)?.codebookVersion ?? 0)) return;
    this.#newest.set(scenario, codebook);
    const mine = this.#trained?.codebookVersions[scenario];
    if (mine !== undefined && codebookVersion > mine) {
      this.#meter.add('newer_codebooks');
      this.#log.warn(
        { scenario, codebookVersion, trainedVersion: mine },
        'a newer codebook was published: this trainer keeps the version of its weights and looks SIDs up in it; a trainer with ONEMALL_FORK=true carries the policy over to the newer one',
      );
    }
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #missing(): string[] {
    return this.#scenarios.filter((scenario) => !this.#newest.has(scenario));
  }

  /**
   * The newest codebook of every scenario; waits while one is missing, and says so in the log and in the gauge
   * codebooks_missing. null when the service stops before.
   */
  async all(clock: Clock, stopping: AbortSignal): Promise<Codebook[] | null> {
    while (this.#missing().length > 0) {
      this.#meter.set('codebooks_missing', this.#missing().length, 'Scenarios whose codebook is waited for');
      this.#log.info({ missing: this.#missing() }, 'waiting for codebooks of these scenarios');
      await Promise.race([this.#changed.promise, clock.sleep(REMIND_MS, stopping)]).catch(() => {});
      if (stopping.aborted) return null;
    }
    this.#meter.set('codebooks_missing', 0);
    return this.#scenarios.map((scenario) => this.#newest.get(scenario)!);
  }

  /** The versions that the weights belong to; newer ones are reported from now on. */
  keepTo(trained: Codebooks): void {
    this.#trained = trained;
    for (const codebook of [...this.#newest.values()]) this.#take(codebook);
  }

  async close(): Promise<void> {
    await this.#table?.close();
  }
}
