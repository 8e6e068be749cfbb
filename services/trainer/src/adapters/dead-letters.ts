import type { BadRecordError } from '@onemall/contracts';
import type { KafkaIo, RawRecord, RecordWriter } from '@onemall/kafka-io';
import type { Logger, StageMeter } from '@onemall/service-kit';

/**
 * Sends records that no retry mends to dead-letters, before the step that passes them. After a crash a record between the
 * last checkpoint and the crash may go there once more; its topic, partition and offset show that it is the same one.
 */
export class DeadLetters {
  readonly #io: KafkaIo;
  readonly #writer: RecordWriter;
  readonly #log: Logger;
  readonly #meter: StageMeter;
  /** Below these offsets the process before the crash has sent them already. */
  readonly #alreadySent: ReadonlyMap<string, number>;

  constructor(
    io: KafkaIo,
    writer: RecordWriter,
    log: Logger,
    meter: StageMeter,
    alreadySent: ReadonlyMap<string, number> = new Map(),
  ) {
    this.#io = io;
    this.#writer = writer;
    this.#log = log;
    this.#meter = meter;
    this.#alreadySent = alreadySent;
  }

  async send(record: RawRecord, error: BadRecordError): Promise<void> {
    const { topic, partition, offset } = record;
    if (offset < (this.#alreadySent.get(`${topic}-${partition}`) ?? 0)) return;
    this.#log.warn({ topic, partition, offset, reason: error.reason }, error.message);
    await this.#writer.send([this.#io.deadLetter(record, error)]);
    this.#meter.recordDeadLetter(error.reason);
  }
}
