/**
 * Publishes a model of a durable checkpoint: files to the artifact store, then the pointer to policy-versions.
 *
 * The pointer goes through the transactional id of the model, which this process took over when it started: an older
 * trainer that wakes up is fenced and ends.
 */
import type { ModelKind, PolicyVersion } from '@onemall/contracts';
import type { OutRecord } from '@onemall/kafka-io';
import {
  FencedError,
  type KafkaIo,
  type TransactionalWriter,
  TransactionFailedError,
} from '@onemall/kafka-io';
import type { ArtifactStore, Clock, Logger } from '@onemall/service-kit';
import type { Files, Learner } from '../learner.ts';
import { outdatedPolicies } from '../stages/outdated-policies.ts';
import { type StoredCheckpoint, stepName } from './checkpoint-store.ts';

const FIRST_RETRY_MS = 200;
const LONGEST_RETRY_MS = 10_000;

export interface PolicyPublisherOptions {
  io: KafkaIo;
  artifacts: ArtifactStore;
  clock: Clock;
  log: Logger;
  /** Published models kept in the store. */
  keep: number;
  /** Takes the transactional id over with its first publication instead of at once: until then another trainer publishes. */
  takesOverLater?: boolean;
  stopping: AbortSignal;
}

/** `<step>-<first 12 hex digits of the checkpoint's sha256>` */
export const policyVersionOf = (stored: Pick<StoredCheckpoint, 'step' | 'sha256'>): string =>
  `${stored.step}-${stored.sha256.slice(0, 12)}`;

/** What the topic says is in use; null if nothing was published. */
export async function newestPolicy(io: KafkaIo, kind: ModelKind): Promise<PolicyVersion | null> {
  let newest: PolicyVersion | null = null;
  const failed = Promise.withResolvers<never>();
  const table = await io.openTable({
    topic: 'policy-versions',
    onRecord: ({ key, value }) => {
      if (key === kind) newest = value;
    },
    onError: failed.reject,
  });
  try {
    await Promise.race([table.readToEnd(), failed.promise]);
  } finally {
    await table.close();
  }
  return newest;
}

export class PolicyPublisher {
  readonly #options: PolicyPublisherOptions;
  readonly #writer: TransactionalWriter;
  #owner = false;

  private constructor(options: PolicyPublisherOptions, writer: TransactionalWriter) {
    this.#options = options;
    this.#writer = writer;
  }

  /** Takes the model's transactional id over, unless that is to come later. */
  static async open(options: PolicyPublisherOptions, model: string): Promise<PolicyPublisher> {
    const { io } = options;
    const writer = await io.openTransactionalWriter(`${io.options.namespace}.trainer-${model}`);
    const publisher = new PolicyPublisher(options, writer);
    if (!options.takesOverLater) await publisher.#takeOver();
    return publisher;
  }

  async #takeOver(): Promise<void> {
    await this.#writer.init();
    this.#owner = true;
  }

  versionOf = policyVersionOf;

  /**
   * @param files of a published model, made under `versionOf(checkpoint)`
   * @param metrics figures that go with the version
   * @returns its policyVersion
   * @throws FencedError when another trainer of this model was started
   */
  async publish(
    learner: Pick<Learner, 'model' | 'kind' | 'codebookVersions'>,
    files: Files,
    checkpoint: StoredCheckpoint,
    metrics: Record<string, number>,
  ): Promise<string> {
    const { artifacts, clock, keep } = this.#options;
    const policyVersion = policyVersionOf(checkpoint);
    const folder = `policies/${learner.model}`;
    const { uri, sha256 } = await artifacts.put(
      `${folder}/${stepName(checkpoint.step)}-${checkpoint.sha256.slice(0, 12)}`,
      files,
    );
    await this.#commit({
      topic: 'policy-versions',
      key: learner.kind,
      value: {
        model: learner.kind,
        policyVersion,
        uri,
        sha256,
        step: checkpoint.step,
        codebookVersions: { ...learner.codebookVersions },
        metrics,
        createdMs: clock.nowMs(),
      },
    });
    const stored = await artifacts.list(folder);
    for (const old of outdatedPolicies(stored, uri, keep)) await artifacts.remove(old);
    return policyVersion;
  }

  /** Until it is committed; the record is the same each time, so a copy does no harm. */
  async #commit(record: OutRecord): Promise<void> {
    const { clock, log, stopping } = this.#options;
    for (let waitMs = FIRST_RETRY_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_RETRY_MS)) {
      try {
        if (!this.#owner) await this.#takeOver();
        return await this.#writer.commit({ records: [record] });
      } catch (error) {
        if (error instanceof FencedError || !(error instanceof TransactionFailedError)) throw error;
        log.warn({ err: error, waitMs }, 'publishing failed; taking the transactional id again and retrying');
        await clock.sleep(waitMs, stopping);
        await this.#writer.init();
      }
    }
  }

  async close(): Promise<void> {
    await this.#writer.close();
  }
}
