/**
 * Sends batches under one producer id with sequence numbers, so that a batch that is sent again after a lost answer is
 * kept once. Per partition the next batch leaves only after the one before it was acknowledged.
 */
import type { PartitionBatches } from './batch-set.ts';
import { BrokerError, type Brokers, isPassing } from './brokers.ts';
import { produceBatches, type SealedBatch } from './data-plane/produce.ts';
import { RecordTooLargeError } from './errors.ts';

const MAX_SEQUENCE = 2 ** 31;
const MESSAGE_TOO_LARGE = 10;
const RECORD_LIST_TOO_LARGE = 18;
/** The broker has the batch already: an earlier try arrived. */
const DUPLICATE_SEQUENCE_NUMBER = 46;

interface Head {
  of: PartitionBatches;
  batch: SealedBatch;
  next: number;
  /** Sent so often. */
  tries: number;
}

export class SequencedSender {
  readonly #brokers: Brokers;
  readonly #transactionalId: string | null;
  readonly #producerId: number;
  readonly #producerEpoch: number;
  readonly #addsPartitions: boolean;
  readonly #sequences = new Map<string, number>();

  /** @param options.addsPartitions writing adds the partitions to the transaction: version 2 */
  constructor(
    brokers: Brokers,
    producer: { transactionalId: string | null; producerId: number; producerEpoch: number },
    { addsPartitions = false } = {},
  ) {
    this.#brokers = brokers;
    this.#transactionalId = producer.transactionalId;
    this.#producerId = producer.producerId;
    this.#producerEpoch = producer.producerEpoch;
    this.#addsPartitions = addsPartitions;
  }

  /**
   * Resolves when every batch is acknowledged by all in-sync replicas. What was acknowledged is taken off the front of
   * `builders`, so a caller may go on with the rest under another producer id.
   * @throws RecordTooLargeError, BrokerError
   */
  async send(partitions: readonly PartitionBatches[], giveUpMs = Number.POSITIVE_INFINITY): Promise<void> {
    const deadline = performance.now() + giveUpMs;
    while (partitions.some((p) => p.builders.length > 0)) {
      const heads = new Set(partitions.filter((p) => p.builders.length > 0).map((p) => this.#head(p)));
      await this.#brokers.waitOut(
        `writing to ${[...new Set([...heads].map((h) => h.of.topic))].join(', ')}`,
        () => this.#sendOnce(heads),
        { giveUpMs: deadline - performance.now() },
      );
    }
  }

  #head(of: PartitionBatches): Head {
    const builder = of.builders[0]!;
    const baseSequence = this.#sequences.get(key(of)) ?? 0;
    const bytes = builder.seal({
      producerId: this.#producerId,
      producerEpoch: this.#producerEpoch,
      baseSequence,
      transactional: this.#transactionalId !== null,
    });
    return {
      of,
      batch: { topic: of.topic, partition: of.partition, bytes },
      next: (baseSequence + builder.count) % MAX_SEQUENCE,
      tries: 0,
    };
  }

  /** Sends what is left of the heads; those acknowledged leave the set even where others fail. */
  async #sendOnce(heads: Set<Head>): Promise<void> {
    const byLeader = Map.groupBy(heads, (h) => this.#brokers.leaderOf(h.of.topic, h.of.partition));
    const outcomes = await Promise.allSettled(
      [...byLeader].map(async ([nodeId, mine]) => {
        const broker = await this.#brokers.broker(nodeId);
        for (const head of mine) head.tries++;
        const answers = await produceBatches(
          broker,
          this.#transactionalId,
          mine.map((h) => h.batch),
          this.#addsPartitions,
        );
        const errors: unknown[] = [];
        for (const { topic, partition, errorCode } of answers) {
          const head = mine.find((h) => h.of.topic === topic && h.of.partition === partition)!;
          if (errorCode === 0 || errorCode === DUPLICATE_SEQUENCE_NUMBER) this.#acknowledge(head, heads);
          else errors.push(refusal(errorCode, head));
        }
        if (errors.length > 0) throw worst(errors);
      }),
    );
    const failures = outcomes.filter((o) => o.status === 'rejected').map((o) => o.reason as unknown);
    if (failures.length > 0) throw worst(failures);
  }

  #acknowledge(head: Head, heads: Set<Head>): void {
    heads.delete(head);
    const builder = head.of.builders.shift()!;
    // An earlier try may still wait in a socket with these bytes.
    if (head.tries === 1) builder.release();
    this.#sequences.set(key(head.of), head.next);
  }
}

const key = ({ topic, partition }: PartitionBatches): string => `${topic}\n${partition}`;

function refusal(code: number, { batch, of }: Head): Error {
  const at = `to Produce of ${batch.bytes.length} bytes in ${of.builders[0]!.count} records to ${batch.topic} ${batch.partition}`;
  if (code === MESSAGE_TOO_LARGE || code === RECORD_LIST_TOO_LARGE)
    return new RecordTooLargeError(
      `The broker takes no batch of ${batch.bytes.length} bytes in ${batch.topic}: raise the topic's max.message.bytes or write smaller values`,
    );
  return new BrokerError(code, at);
}

/** One that does not pass by itself, if there is one. */
const worst = (errors: readonly unknown[]): unknown => errors.find((e) => !isPassing(e)) ?? errors[0];
