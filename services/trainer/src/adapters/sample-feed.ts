/** Reads training-samples ahead of training, as far as the buffers allow. */
import {
  BadRecordError,
  readSample,
  type StreamedSample,
  schemaIdOf,
  type TopicName,
} from '@onemall/contracts';
import {
  type FetchedPartition,
  type KafkaIo,
  type LogReader,
  OffsetOutOfRangeError,
  type Position,
  type RawRecord,
} from '@onemall/kafka-io';
import type { Logger, StageMeter } from '@onemall/service-kit';
import { checkSample } from '../stages/check-sample.ts';
import { BatchDrawer } from '../stages/draw-batch.ts';
import type { LeftOut } from '../stages/select-sample.ts';
import type { DeadLetters } from './dead-letters.ts';

const SAMPLES = 'training-samples' satisfies TopicName;
const LONGEST_POLL_MS = 500;

/** A selected sample with the broker's time of its record. */
export interface FedSample {
  sample: StreamedSample;
  appendedMs: number;
}

export interface SampleFeedOptions {
  io: KafkaIo;
  log: Logger;
  meter: StageMeter;
  deadLetters: DeadLetters;
  scenarios: ReadonlySet<string>;
  leavesOut: (sample: StreamedSample) => LeftOut | null;
  /** Sees the samples that only their being held back leaves out. */
  onHeldBack?: (sample: StreamedSample) => void;
  batchSize: number;
  /** Samples of one partition that wait before its reading pauses. */
  maxBuffered: number;
  /** Offset of the next record by partition, and whose turn it is; null starts at the earliest retained record. */
  resume: { positions: ReadonlyMap<number, number>; cursor: number } | null;
  acceptLostSamples: boolean;
  stopping: AbortSignal;
}

export class SampleFeed {
  readonly drawer: BatchDrawer<FedSample>;
  readonly #options: SampleFeedOptions;
  readonly #reader: LogReader;
  readonly #partitions: readonly number[];
  #news = Promise.withResolvers<void>();
  #room = Promise.withResolvers<void>();
  #paused = new Set<number>();

  private constructor(options: SampleFeedOptions, reader: LogReader, ends: readonly Position[]) {
    const { resume } = options;
    const sorted = ends.toSorted((a, b) => a.partition - b.partition);
    this.#options = options;
    this.#reader = reader;
    this.#partitions = sorted.map((e) => e.partition);
    this.drawer = new BatchDrawer(
      options.batchSize,
      sorted.map(({ partition, offset: end }) => ({
        partition,
        // Without a checkpoint "from 0" stands for "from what is retained".
        offset: resume?.positions.get(partition) ?? 0,
        end,
      })),
      resume?.cursor,
    );
  }

  static async open(options: SampleFeedOptions): Promise<SampleFeed> {
    const { io, resume } = options;
    const ends = await io.endOffsets(SAMPLES);
    if (resume && resume.positions.size !== ends.length)
      throw new Error(
        `${SAMPLES} has ${ends.length} partitions, the checkpoint knows ${resume.positions.size}. Restore the partition count, or remove the checkpoints to train from the beginning.`,
      );
    const reader = await io.openReader();
    await reader.assign(
      ends.map(({ partition }) => ({
        topic: SAMPLES,
        partition,
        offset: resume?.positions.get(partition) ?? -2,
      })),
    );
    return new SampleFeed(options, reader, ends);
  }

  /** Resolves at the next fetch that brought something or showed an end. */
  get news(): Promise<void> {
    return this.#news.promise;
  }

  /** Records not read yet, plus samples that wait for their step. */
  async lag(): Promise<number> {
    const ends = await this.#options.io.endOffsets(SAMPLES);
    return ends.reduce(
      (sum, { partition, offset }) => sum + Math.max(0, offset - this.drawer.readTo(partition)),
      this.drawer.buffered,
    );
  }

  /** Called after samples were drawn: paused partitions may go on. */
  madeRoom(): void {
    for (const partition of this.#paused)
      if (this.drawer.bufferedOf(partition) <= this.#options.maxBuffered / 2) {
        this.#paused.delete(partition);
        this.#reader.resume([{ topic: SAMPLES, partition }]);
      }
    this.#room.resolve();
    this.#room = Promise.withResolvers();
  }

  /** Reads until the service stops. */
  async run(): Promise<void> {
    const { stopping } = this.#options;
    const stopped = new Promise<void>((resolve) =>
      stopping.addEventListener('abort', () => resolve(), { once: true }),
    );
    stopping.addEventListener('abort', () => this.#news.resolve(), { once: true });
    while (!stopping.aborted) {
      // A poll with nothing to ask for would answer at once, again and again.
      if (this.#paused.size === this.#partitions.length) {
        await Promise.race([this.#room.promise, stopped]);
        continue;
      }
      for (const fetched of await this.#poll()) await this.#take(fetched);
      this.#news.resolve();
      this.#news = Promise.withResolvers();
    }
  }

  async #poll(): Promise<FetchedPartition[]> {
    const { acceptLostSamples, log, stopping } = this.#options;
    try {
      return await this.#reader.poll({ maxWaitMs: LONGEST_POLL_MS, signal: stopping });
    } catch (error) {
      if (stopping.aborted) return [];
      if (!(error instanceof OffsetOutOfRangeError) || !error.at) throw error;
      if (!acceptLostSamples)
        throw new Error(
          `Samples that the checkpoint needs are no longer retained: ${error.message}. Set ONEMALL_ACCEPT_LOST_SAMPLES=true once to go on from the earliest retained sample without them.`,
          { cause: error },
        );
      const { partition } = error.at;
      log.warn(
        { err: error, partition },
        'samples of a partition were lost to retention; it goes on from its earliest, as acceptLostSamples says',
      );
      // This one alone: the others would go back to samples that were trained on.
      await this.#reader.assign([{ topic: SAMPLES, partition, offset: -2 }]);
      this.#paused.delete(partition); // a new assignment is not paused
      return [];
    }
  }

  async #take(fetched: FetchedPartition): Promise<void> {
    const { meter, leavesOut, onHeldBack, maxBuffered } = this.#options;
    const { partition } = fetched;
    const selected: { offset: number; sample: FedSample }[] = [];
    for (const record of fetched.records) {
      const sample = await this.#read(record);
      if (!sample) continue;
      const reason = leavesOut(sample);
      if (reason === null)
        selected.push({ offset: record.offset, sample: { sample, appendedMs: record.timestampMs } });
      else {
        meter.add(`left_out_${reason}`);
        if (reason === 'held_back') onHeldBack?.(sample);
      }
    }
    meter.recordIn(fetched.records.length);
    // What an open transaction hides is not at hand: the stable end is the end.
    this.drawer.add(partition, selected, fetched.nextOffset, fetched.lastStableOffset);
    fetched.release(); // what was selected holds copies
    if (this.drawer.bufferedOf(partition) >= maxBuffered && !this.#paused.has(partition)) {
      this.#paused.add(partition);
      this.#reader.pause([{ topic: SAMPLES, partition }]);
    }
  }

  /** null for what went to dead-letters. */
  async #read(record: RawRecord): Promise<StreamedSample | null> {
    const { io, scenarios, deadLetters } = this.#options;
    try {
      const { key, value } = this.#readOwn(record) ?? (await io.decode(SAMPLES, record));
      if (value) checkSample(key, value, scenarios);
      return value;
    } catch (error) {
      if (!(error instanceof BadRecordError)) throw error;
      await deadLetters.send(record, error);
      return null;
    }
  }

  /** null where the writer had another schema, or the bytes are not what it says: decoding by the schema tells. */
  #readOwn({ key, value }: RawRecord): { key: string; value: StreamedSample } | null {
    if (!value || !this.#options.io.isOwnSchema(SAMPLES, schemaIdOf(value))) return null;
    const sample = readSample(value);
    return sample && { key: key?.toString('utf8') ?? '', value: sample };
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }
}
