/**
 * Takes the buffered records of one partition's three logs in the order in which the join must see them: always from
 * the input furthest behind, so that which event counts as late does not depend on how the fetches came.
 */
import { Watermark, type WatermarkOptions } from '@onemall/event-time';
import { LOG_TOPICS, type LogTopic } from './log-record.ts';
import type { RecordView } from './read-event.ts';

/** A pass over fetched records: after `next` it stands at one, which it is. */
export interface RecordPass extends RecordView {
  /** At most so many records come in all. */
  readonly maxCount: number;
  next(): boolean;
}

export interface Fetched {
  topic: LogTopic;
  records: RecordPass;
  /** Told when the last record has been taken. */
  release?: () => void;
  /** Position after this fetch. */
  nextOffset: number;
  highWatermark: number;
  /** Monotonic time at which the request left. */
  sentAtMs: number;
}

interface Pass {
  records: RecordPass;
  release: (() => void) | undefined;
}

class Buffered {
  /** Stands at the record to take next. */
  #head: RecordPass | undefined;
  #release: (() => void) | undefined;
  readonly #rest: Pass[] = [];
  /** Position after the last fetch. */
  #fetchedTo: number;
  #count = 0;
  constructor(nextOffset: number) {
    this.#fetchedTo = nextOffset;
  }
  /** At most so many are buffered; 0 where none is. */
  get count(): number {
    return this.#head ? Math.max(1, this.#count) : 0;
  }
  /** Offset of the next record to take. */
  get nextOffset(): number {
    return this.#head ? this.#head.offset : this.#fetchedTo;
  }
  get head(): RecordView | undefined {
    return this.#head;
  }
  push(records: RecordPass, fetchedTo: number, release: (() => void) | undefined): void {
    this.#count += records.maxCount;
    this.#fetchedTo = fetchedTo;
    this.#rest.push({ records, release });
    if (!this.#head) this.#moveOn();
  }
  drop(): void {
    this.#count--;
    if (!this.#head!.next()) this.#moveOn();
  }
  /** To the first record of the next pass that has one. */
  #moveOn(): void {
    this.#head = undefined;
    this.#release?.();
    this.#release = undefined;
    for (let pass = this.#rest.shift(); pass; pass = this.#rest.shift()) {
      if (pass.records.next()) {
        this.#head = pass.records;
        this.#release = pass.release;
        return;
      }
      pass.release?.();
    }
    this.#count = 0;
  }
}

export class InputMerge {
  readonly watermark: Watermark;
  readonly #inputs: Buffered[];

  /** @param start next offset to read of each topic */
  constructor(options: Omit<WatermarkOptions, 'numInputs'>, start: Readonly<Record<LogTopic, number>>) {
    this.watermark = new Watermark({ ...options, numInputs: LOG_TOPICS.length });
    this.#inputs = LOG_TOPICS.map((topic) => new Buffered(start[topic]));
  }

  fetched({ topic, records, release, nextOffset, highWatermark, sentAtMs }: Fetched): void {
    const at = LOG_TOPICS.indexOf(topic);
    const input = this.#inputs[at]!;
    const before = input.count;
    input.push(records, nextOffset, release);
    // The high watermark, not the last stable offset: an open transaction may still bring older events.
    if (before === 0 && input.count === 0 && nextOffset >= highWatermark) this.watermark.atEnd(at, sentAtMs);
    else this.watermark.hasMore(at, sentAtMs);
  }

  /** The topic to take a record of next, or undefined where the input furthest behind has to be fetched first. */
  nextTopic(nowMs: number): LogTopic | undefined {
    const behind = this.watermark.furthestBehind(nowMs);
    return behind < 0 || !this.#inputs[behind]!.head ? undefined : LOG_TOPICS[behind];
  }

  /** The input that the watermark waits for; null where all are at their end. */
  waitsFor(nowMs: number): LogTopic | null {
    return LOG_TOPICS[this.watermark.furthestBehind(nowMs)] ?? null;
  }

  /** The record of the topic that `nextTopic` told of; valid until it is dropped. */
  peek(topic: LogTopic): RecordView {
    return this.#inputs[LOG_TOPICS.indexOf(topic)]!.head!;
  }

  /** Passes over that record. */
  drop(topic: LogTopic): void {
    this.#inputs[LOG_TOPICS.indexOf(topic)]!.drop();
  }

  /** The record's event is in the join: it moves the watermark of its input. */
  taken(topic: LogTopic, eventTimeMs: number, nowMs: number): void {
    this.watermark.observe(LOG_TOPICS.indexOf(topic), eventTimeMs, nowMs);
  }

  nextOffset(topic: LogTopic): number {
    return this.#inputs[LOG_TOPICS.indexOf(topic)]!.nextOffset;
  }

  numBuffered(topic: LogTopic): number {
    return this.#inputs[LOG_TOPICS.indexOf(topic)]!.count;
  }
}
