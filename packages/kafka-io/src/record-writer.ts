/** Idempotent producer outside transactions: at least once, in order per partition, acknowledged by all replicas. */
import { type Encoding, gatherBatches, type PartitionBatches } from './batch-set.ts';
import { BrokerError, type Brokers } from './brokers.ts';
import { initProducerId } from './data-plane/transactions.ts';
import { KafkaIoError } from './errors.ts';
import type { AnyOutRecord, RecordWriter } from './ports.ts';
import { SequencedSender } from './sequenced-sender.ts';

const UNUSED_TIMEOUT_MS = 60_000;
/** The broker has lost or fenced the producer's state: a new id goes on from there. */
const NEEDS_NEW_ID = new Set([
  'OUT_OF_ORDER_SEQUENCE_NUMBER',
  'UNKNOWN_PRODUCER_ID',
  'INVALID_PRODUCER_EPOCH',
  'INVALID_PRODUCER_ID_MAPPING',
]);

export class IdempotentWriter implements RecordWriter {
  readonly #brokers: Brokers;
  readonly #encoding: Encoding;
  #sender: SequencedSender | undefined;
  #turn: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(encoding: Encoding) {
    this.#brokers = encoding.brokers;
    this.#encoding = encoding;
  }

  send(records: readonly AnyOutRecord[]): Promise<void> {
    if (this.#closed) return Promise.reject(new KafkaIoError('The writer is closed: open a new one'));
    if (records.length === 0) return Promise.resolve();
    // One call after another keeps the order of records and the sequence numbers.
    const sent = this.#turn.then(async () => this.#send(await gatherBatches(records, this.#encoding)));
    this.#turn = sent.catch(() => {});
    return sent;
  }

  async #send(batches: readonly PartitionBatches[]): Promise<void> {
    for (;;) {
      try {
        this.#sender ??= await this.#start();
        return await this.#sender.send(batches);
      } catch (error) {
        // After a failure the broker may hold a batch that this side does not count: never go on with these numbers.
        this.#sender = undefined;
        if (!(error instanceof BrokerError && NEEDS_NEW_ID.has(error.type))) throw error;
      }
    }
  }

  #start(): Promise<SequencedSender> {
    return this.#brokers.waitOut('asking for a producer id', async () => {
      const producer = await initProducerId(await this.#brokers.anyBroker(), null, UNUSED_TIMEOUT_MS);
      return new SequencedSender(this.#brokers, { transactionalId: null, ...producer });
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#turn;
  }
}
