/** What one Fetch answer held of one partition. */
import type { TopicName } from '@onemall/contracts';
import { type BatchView, RecordCursor, type TransactionEnd } from './data-plane/record-batch.ts';
import type { FetchedPartition, RawRecord } from './ports.ts';
import { giveBack } from './receiving.ts';

/** The bytes of one answer, which has parts of several partitions. Used again once all who hold it have let go. */
export class SharedMemory {
  readonly #bytes: Buffer;
  #holders = 1;
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  held(): this {
    this.#holders++;
    return this;
  }
  release(): void {
    if (--this.#holders === 0) giveBack(this.#bytes);
  }
}

export interface FetchedParts {
  topic: TopicName;
  partition: number;
  batches: readonly BatchView[];
  ends: readonly TransactionEnd[];
  fetchOffset: number;
  nextOffset: number;
  highWatermark: number;
  lastStableOffset: number;
  sentAtMs: number;
  sizeBytes: number;
  /** Held for this partition's part; null where that is empty. */
  memory: SharedMemory | null;
}

export class Fetched implements FetchedPartition {
  readonly topic: TopicName;
  readonly partition: number;
  readonly nextOffset: number;
  readonly highWatermark: number;
  readonly lastStableOffset: number;
  readonly sentAtMs: number;
  readonly sizeBytes: number;
  readonly ends: readonly TransactionEnd[];
  readonly #batches: readonly BatchView[];
  readonly #fetchOffset: number;
  #records: RawRecord[] | undefined;
  #memory: SharedMemory | null;

  constructor(parts: FetchedParts) {
    this.topic = parts.topic;
    this.partition = parts.partition;
    this.nextOffset = parts.nextOffset;
    this.highWatermark = parts.highWatermark;
    this.lastStableOffset = parts.lastStableOffset;
    this.sentAtMs = parts.sentAtMs;
    this.sizeBytes = parts.sizeBytes;
    this.ends = parts.ends;
    this.#batches = parts.batches;
    this.#fetchOffset = parts.fetchOffset;
    this.#memory = parts.memory;
  }

  release(): void {
    this.#memory?.release();
    this.#memory = null;
  }

  cursor(): RecordCursor {
    return new RecordCursor(this.#batches, this.#fetchOffset);
  }

  get records(): RawRecord[] {
    if (this.#records) return this.#records;
    const records: RawRecord[] = [];
    const at = this.cursor();
    while (at.next())
      records.push({
        topic: this.topic,
        partition: this.partition,
        offset: at.offset,
        timestampMs: at.timestampMs,
        key: at.keyLength < 0 ? null : at.bytes.subarray(at.keyStart, at.keyStart + at.keyLength),
        value: at.valueLength < 0 ? null : at.bytes.subarray(at.valueStart, at.valueStart + at.valueLength),
      });
    this.#records = records;
    return records;
  }
}
