/**
 * consumes      a durable checkpoint's exported files, beside the next training steps
 * produces      policy-versions and the artifact behind it, then item-embeddings of its item tower; or nothing, and the
 *               reason in log, gauges and training-metrics
 * waits for     the release before it: one at a time
 * commits when  the gate lets the model pass; the pointer is written when its artifact is durable. Vectors that a crash
 *               left out come with the next policy
 */
import type { Logger, StageMeter } from '@onemall/service-kit';
import type { StoredCheckpoint } from './adapters/checkpoint-store.ts';
import type { ItemVectors } from './adapters/item-vectors.ts';
import type { PolicyPublisher } from './adapters/policy-publisher.ts';
import type { TrainingReport } from './adapters/training-report.ts';
import type { Files, Learner, ModelGate } from './learner.ts';

export interface ReleaseParts {
  learner: Learner;
  /** null: every model passes. */
  gate: ModelGate | null;
  /** null: the model has no item tower. */
  vectors: ItemVectors | null;
  publisher: PolicyPublisher;
  report: TrainingReport;
  log: Logger;
  meter: StageMeter;
  stopping: AbortSignal;
  /** The checkpoint behind the policy in use from now on. */
  onPublished: (checkpoint: StoredCheckpoint) => void;
}

export class Release {
  readonly #parts: ReleaseParts;
  readonly #failed = Promise.withResolvers<never>();
  #running: Promise<void> | null = null;
  /** Models refused one after the other since the newest that passed. */
  refusals = 0;

  constructor(parts: ReleaseParts) {
    this.#parts = parts;
    this.#failed.promise.catch(() => {}); // who trains races with it; when nobody does, it is not unhandled
    parts.meter.set('policy_refused', 0, '1 while the newest model that was judged stays unpublished');
  }

  get busy(): boolean {
    return this.#running !== null;
  }
  /** Rejects when a release fails, such as by FencedError; never resolves. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Exports the model as it is now and goes on by itself. Not while busy. */
  async begin(stored: StoredCheckpoint): Promise<void> {
    const { learner, log, publisher, report } = this.#parts;
    const notYet = learner.publishable();
    if (notYet) {
      log.info(`not published: ${notYet}`);
      return;
    }
    const files = await learner.exportFiles(publisher.versionOf(stored));
    const metrics = report.newest();
    this.#running = this.#release(stored, files, metrics)
      .catch((error) => this.#failed.reject(error))
      .finally(() => {
        this.#running = null;
      });
  }

  /** Resolves when nothing is under way; rejects as `failed` does. */
  async settled(): Promise<void> {
    if (this.#running) await Promise.race([this.#running, this.failed]);
  }

  async #release(stored: StoredCheckpoint, files: Files, metrics: Record<string, number>): Promise<void> {
    const { gate, learner, log, publisher, report, stopping, vectors } = this.#parts;
    const figures = await this.#judge(publisher.versionOf(stored), files);
    if (figures === null) return;
    const policyVersion = await publisher.publish(learner, files, stored, { ...metrics, ...figures });
    await gate?.accepted();
    this.refusals = 0;
    this.#parts.onPublished(stored);
    report.policyVersion = policyVersion;
    log.info({ policyVersion }, stopping.aborted ? 'published while stopping' : 'published');
    if (vectors && !stopping.aborted)
      log.info(
        { policyVersion, vectors: await vectors.publish(policyVersion, files, stopping) },
        'item vectors written',
      );
  }

  /** Figures of a model that passes, null for one that does not. */
  async #judge(policyVersion: string, files: Files): Promise<Record<string, number> | null> {
    const { gate, log, meter, report, stopping } = this.#parts;
    if (!gate) return {};
    let verdict: Awaited<ReturnType<ModelGate['judge']>>;
    try {
      verdict = await gate.judge(files, stopping);
    } catch (error) {
      if (stopping.aborted) return null;
      throw error;
    }
    const { outcome, reasons, figures } = verdict;
    report.judged(figures);
    meter.set('policy_refused', outcome === 'refuse' ? 1 : 0);
    if (outcome === 'refuse') {
      meter.add('policies_refused');
      this.refusals++;
      log.error(
        { policyVersion, reasons },
        `not published, the policy in use goes on: ${reasons.join('; ')}`,
      );
      return null;
    }
    if (reasons.length > 0)
      log.info(
        { policyVersion },
        `${outcome === 'wait' ? 'not published yet' : 'unmeasured'}: ${reasons.join('; ')}`,
      );
    return outcome === 'wait' ? null : (figures.find((row) => row.scenario === '')?.values ?? {});
  }
}
