/**
 * Records and consumer offsets in one transaction. kafkajs' producer retries neither commit nor addOffsetsToTxn and
 * hides an unknown outcome; here each step is its own request, and a failed one leaves the writer unusable until `init`.
 *
 * Where the cluster has transactions of version 2 (KIP-890) three requests make one: records beside offsets, then the end.
 * Else five: partitions, then records, beside the group, then its offsets; then the end.
 */
import { type Encoding, gatherBatches, type PartitionBatches } from './batch-set.ts';
import { BrokerError, type Brokers } from './brokers.ts';
import type { CommittedOffsets } from './committed-offsets.ts';
import {
  addOffsetsToTransaction,
  addPartitionsToTransaction,
  commitOffsetsInTransaction,
  endTransaction,
  initProducerId,
  type Producer,
} from './data-plane/transactions.ts';
import { addAndCommitOffsets, endAndRaiseEpoch, transactionVersion } from './data-plane/transactions-v2.ts';
import { FencedError, KafkaIoError, TransactionFailedError } from './errors.ts';
import type { Broker } from './kafkajs-internals.ts';
import type { AnyOutRecord, Position, RecordBlock, TransactionalWriter } from './ports.ts';
import { SequencedSender } from './sequenced-sender.ts';

const FENCED = new Set(['INVALID_PRODUCER_EPOCH', 'PRODUCER_FENCED', 'INVALID_PRODUCER_ID_MAPPING']);
const DEFAULT_TRANSACTION_TIMEOUT_MS = 60_000;

interface Transaction {
  records: readonly AnyOutRecord[];
  blocks?: readonly RecordBlock[];
  offsets?: { groupId: string; positions: readonly Position[] };
}

export class TransactionalRecordWriter implements TransactionalWriter {
  readonly #id: string;
  readonly #brokers: Brokers;
  readonly #encoding: Encoding;
  readonly #committed: CommittedOffsets;
  readonly #timeoutMs: number;
  #producer: Producer | undefined;
  #sender: SequencedSender | undefined;
  #isVersion2 = false;
  #busy = false;

  /** @param options.brokers for this writer alone, which closes them */
  constructor(options: {
    transactionalId: string;
    brokers: Brokers;
    encoding: Encoding;
    committed: CommittedOffsets;
    transactionTimeoutMs: number | undefined;
  }) {
    this.#id = options.transactionalId;
    this.#encoding = { ...options.encoding, brokers: options.brokers };
    this.#brokers = options.brokers;
    this.#committed = options.committed;
    this.#timeoutMs = options.transactionTimeoutMs ?? DEFAULT_TRANSACTION_TIMEOUT_MS;
  }

  async init(): Promise<void> {
    this.#producer = undefined;
    await this.#brokers.connect();
    this.#isVersion2 = (await this.#step('asking for the version of transactions', transactionVersion)) >= 2;
    const { producerId, producerEpoch } = await this.#step(
      'initializing the transactional id',
      (coordinator) => initProducerId(coordinator, this.#id, this.#timeoutMs),
    );
    this.#goOnAs({ transactionalId: this.#id, producerId, producerEpoch });
  }

  /** Sequence numbers begin anew with each epoch. */
  #goOnAs(producer: Producer): void {
    this.#producer = producer;
    this.#sender = new SequencedSender(this.#brokers, producer, { addsPartitions: this.#isVersion2 });
  }

  async commit({ records, blocks = [], offsets }: Transaction): Promise<void> {
    const producer = this.#producer;
    const sender = this.#sender;
    if (!producer || !sender)
      throw new TransactionFailedError(
        `The transactional id ${this.#id} is not ready: call init, read the committed offsets and restore from them`,
      );
    if (this.#busy)
      throw new KafkaIoError(`A transaction of ${this.#id} is under way: await its commit before the next`);
    const positions = offsets?.positions ?? [];
    if (records.length === 0 && blocks.length === 0 && positions.length === 0) return;
    this.#busy = true;
    try {
      // Encoding may throw on a bad value: nothing has been sent then and the writer stays usable.
      const batches = await gatherBatches(records, this.#encoding, blocks);
      for (const block of blocks) block.copied?.();
      try {
        const write = async (): Promise<void> => {
          if (batches.length > 0) await this.#write(producer, sender, batches);
        };
        const commitOffsets = async (): Promise<void> => {
          if (offsets && positions.length > 0)
            await this.#commitOffsets(producer, offsets.groupId, positions);
        };
        if (this.#mayGoSideBySide()) await bothDone(write(), commitOffsets());
        else {
          await write();
          await commitOffsets();
        }
        const next = await this.#end(producer);
        if (next !== producer) this.#goOnAs(next);
      } catch (cause) {
        this.#producer = undefined;
        throw this.#failed(cause);
      }
      if (offsets) this.#committed.remember(offsets.groupId, positions);
    } finally {
      this.#busy = false;
    }
  }

  /**
   * Either waits for answers most of the time. Only where several brokers add to one transaction of version 2 at the same
   * moment its coordinator sends all but one away, for 20 ms; one broker takes what comes on a connection in turn.
   */
  #mayGoSideBySide(): boolean {
    return !this.#isVersion2 || this.#brokers.isOne;
  }

  /**
   * Repeats EndTxn only after answers that say it was not done. After a lost answer nobody here knows the outcome:
   * the caller fences, reads the committed offsets and goes on from what they say.
   * @returns the producer of the next transaction
   */
  async #end(producer: Producer): Promise<Producer> {
    const coordinator = await this.#brokers.waitOut(
      `finding the coordinator of ${this.#id}`,
      () => this.#brokers.coordinator('transaction', this.#id),
      { giveUpMs: this.#timeoutMs / 2 },
    );
    let at: Broker | undefined = coordinator;
    return this.#brokers.waitOut(
      `committing ${this.#id}`,
      async () => {
        at ??= await this.#brokers.coordinator('transaction', this.#id);
        const to = at;
        at = undefined;
        try {
          if (this.#isVersion2) return await endAndRaiseEpoch(to, producer, true);
          await endTransaction(to, producer, true);
          return producer;
        } catch (error) {
          throw error instanceof BrokerError ? error : new UnknownOutcomeError(error);
        }
      },
      { giveUpMs: this.#timeoutMs / 2 },
    );
  }

  async #write(
    producer: Producer,
    sender: SequencedSender,
    batches: readonly PartitionBatches[],
  ): Promise<void> {
    if (this.#isVersion2) {
      await sender.send(batches, this.#timeoutMs / 2);
      return;
    }
    const topics = [...Map.groupBy(batches, (b) => b.topic)].map(([topic, mine]) => ({
      topic,
      partitions: mine.map((b) => b.partition),
    }));
    await this.#step('adding partitions', (c) => addPartitionsToTransaction(c, producer, topics));
    await sender.send(batches, this.#timeoutMs / 2);
  }

  async #commitOffsets(producer: Producer, groupId: string, positions: readonly Position[]): Promise<void> {
    if (!this.#isVersion2)
      await this.#step('adding offsets', (c) => addOffsetsToTransaction(c, producer, groupId));
    const offsets = positions.map((p) => ({
      topic: this.#encoding.names.physical(p.topic),
      partition: p.partition,
      offset: p.offset,
      metadata: p.metadata ?? '',
    }));
    await this.#brokers.waitOut(
      `committing offsets of ${groupId}`,
      async () => {
        const coordinator = await this.#brokers.coordinator('group', groupId);
        const commit = this.#isVersion2 ? addAndCommitOffsets : commitOffsetsInTransaction;
        await commit(coordinator, producer, groupId, offsets);
      },
      { giveUpMs: this.#timeoutMs / 2 },
    );
  }

  #step<T>(what: string, ask: (coordinator: Broker) => Promise<T>): Promise<T> {
    return this.#brokers.waitOut(
      `${what} of ${this.#id}`,
      async () => ask(await this.#brokers.coordinator('transaction', this.#id)),
      {
        // Before the first transaction there is nothing to time out: init waits as long as it takes.
        ...(this.#producer && { giveUpMs: this.#timeoutMs / 2 }),
      },
    );
  }

  #failed(cause: unknown): TransactionFailedError {
    const { message } = cause as Error;
    if (cause instanceof BrokerError && FENCED.has(cause.type))
      return new FencedError(
        `A newer owner took over the transactional id ${this.#id}, or its transaction ran into the timeout of ${this.#timeoutMs} ms: ${message}. Drop all state of it`,
        { cause },
      );
    return new TransactionFailedError(
      `The transaction of ${this.#id} failed${cause instanceof UnknownOutcomeError ? ' with unknown outcome' : ''}: ${message}. Call init, read the committed offsets and restore from them`,
      { cause },
    );
  }

  async close(): Promise<void> {
    this.#producer = undefined;
    this.#sender = undefined;
    await this.#brokers.close();
  }
}

/** Fails only once both have ended: nothing of a transaction may be under way when it is given up. */
async function bothDone(...parts: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(parts)).find((part) => part.status === 'rejected');
  if (failed) throw failed.reason;
}

/** EndTxn left and no answer came. */
class UnknownOutcomeError extends KafkaIoError {
  override name = 'UnknownOutcomeError';
  constructor(lost: unknown) {
    super(`no answer to EndTxn: ${(lost as Error).message}`);
  }
}
