/**
 * Follows the publications of one model and keeps the newest that loads: each is checked against its sha256, loaded beside
 * the one in use and then switched to. One that does not load is refused, and the old one goes on.
 */
import { ArtifactError, type ArtifactStore } from './artifact-store.ts';
import { HotSwap, type Lease } from './hot-swap.ts';
import type { Logger } from './service.ts';
import type { StageMeter } from './stage-meter.ts';

/** What the follower needs of a record of policy-versions. */
export interface Publication {
  policyVersion: string;
  uri: string;
  sha256: string;
  step: number;
}

const RETRY_MS = 10_000;

export interface ModelFollowerOptions<P extends Publication, M> {
  artifacts: ArtifactStore;
  log: Logger;
  meter: StageMeter;
  /** Makes the files of an artifact usable. @throws Error that says what is wrong with them */
  load(publication: P, files: Map<string, Buffer>): Promise<M>;
  close(model: M): Promise<void>;
  /** How long after the store failed the newest publication is tried again; 10,000 by default. */
  retryMs?: number;
  /** Called after the switch. */
  onLoaded?(publication: P, model: M): void;
}

export class ModelFollower<P extends Publication, M> {
  readonly #options: ModelFollowerOptions<P, M>;
  readonly #swap: HotSwap<M>;
  /** Newest publication not tried yet. */
  #next: P | undefined;
  #serving: P | undefined;
  #working: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #first = Promise.withResolvers<void>();

  constructor(options: ModelFollowerOptions<P, M>) {
    this.#options = options;
    this.#swap = new HotSwap<M>(
      (model) => options.close(model),
      (error) => options.log.warn({ err: error }, 'an old model did not close cleanly'),
    );
  }

  /** A publication was read. Only the newest one is loaded; those between are skipped, and so is the one in use. */
  offer(publication: P): void {
    clearTimeout(this.#retry);
    this.#next = publication;
    this.#working ??= this.#loadAll().finally(() => {
      this.#working = undefined;
    });
  }

  get current(): M | undefined {
    return this.#swap.current;
  }

  acquire(): Lease<M> | undefined {
    return this.#swap.acquire();
  }

  /** Resolves when the first model serves. */
  get firstLoaded(): Promise<void> {
    return this.#first.promise;
  }

  /** Resolves when all that was offered has been loaded or refused. */
  async settled(): Promise<void> {
    while (this.#working) await this.#working;
  }

  async close(): Promise<void> {
    this.#next = undefined;
    await this.settled();
    clearTimeout(this.#retry);
    await this.#swap.close();
  }

  async #loadAll(): Promise<void> {
    const { artifacts, log, meter, load, onLoaded } = this.#options;
    while (this.#next) {
      const publication = this.#next;
      this.#next = undefined;
      if (this.#serving?.sha256 === publication.sha256) continue;
      const { policyVersion, uri, step } = publication;
      try {
        const model = await load(publication, await artifacts.get(publication));
        this.#swap.swap(model);
        this.#serving = publication;
        meter.add('models_loaded');
        meter.set('model_step', step);
        log.info({ policyVersion, uri, step }, 'a new model serves');
        onLoaded?.(publication, model);
        this.#first.resolve();
      } catch (error) {
        meter.add('models_refused');
        log.error(
          { err: error, policyVersion, uri, step },
          `policy ${policyVersion} is refused and the one in use goes on: ${(error as Error).message}`,
        );
        // A store that does not answer may do so later; bytes that are wrong stay wrong.
        const storeFailed = error instanceof ArtifactError && error.cause !== undefined;
        if (storeFailed && !this.#next)
          this.#retry = setTimeout(() => this.offer(publication), this.#options.retryMs ?? RETRY_MS).unref();
      }
    }
  }
}
