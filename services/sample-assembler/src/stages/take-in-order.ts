/**
 * Takes the buffered records of one partition's three logs in the order in which the join must see them: always from
 * the input furthest behind, so that which event counts as late does not depend on how the fetches came.
 */
import { Watermark, type WatermarkOptions } from '@onemall/event-time';
import { LOG_TOPICS, type LogRecord, type LogTopic } from './log-record.ts';

export interface Fetched {
  topic: LogTopic;
  records: LogRecord[];
  /** Position after this fetch. */
  nextOffset: number;
  highWatermark: number;
  /** Monotonic time at which the request left. */
  sentAtMs: number;
}

class Buffered {
  #records: LogRecord[] = [];
  #at = 0;
  /** Position after the last fetch. */
  #fetchedTo: number;
  constructor(nextOffset: number) {
    this.#fetchedTo = nextOffset;
  }
  get length(): number {
    return this.#records.length - this.#at;
  }
  /** Offset of the next record to take. */
  get nextOffset(): number {
    return this.#records[this.#at]?.offset ?? this.#fetchedTo;
  }
  push(records: LogRecord[], fetchedTo: number): void {
    if (this.length === 0) this.#records = records;
    else this.#records = [...this.#records.slice(this.#at), ...records];
    this.#at = 0;
    this.#fetchedTo = fetchedTo;
  }
  take(): LogRecord {
    return this.#records[this.#at++]!;
  }
  peek(): LogRecord | undefined {
    return this.#records[this.#at];
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

  fetched({ topic, records, nextOffset, highWatermark, sentAtMs }: Fetched): void {
    const at = LOG_TOPICS.indexOf(topic);
    const input = this.#inputs[at]!;
    input.push(records, nextOffset);
    // The high watermark, not the last stable offset: an open transaction may still bring older events.
    if (input.length === 0 && records.length === 0 && nextOffset >= highWatermark)
      this.watermark.atEnd(at, sentAtMs);
    else this.watermark.hasMore(at, sentAtMs);
  }

  /** The next record, or undefined where the input furthest behind has to be fetched first. */
  take(nowMs: number): LogRecord | undefined {
    const behind = this.watermark.furthestBehind(nowMs);
    if (behind < 0 || this.#inputs[behind]!.length === 0) return undefined;
    return this.#inputs[behind]!.take();
  }

  /** A replay's records below the given offsets, whatever their order: state does not depend on it. */
  takeBelow(end: Readonly<Record<LogTopic, number>>): LogRecord | undefined {
    for (const [at, topic] of LOG_TOPICS.entries()) {
      const next = this.#inputs[at]!.peek();
      if (next && next.offset < end[topic]) return this.#inputs[at]!.take();
    }
    return undefined;
  }

  /** The record's event is in the join: it moves the watermark of its input. */
  taken(topic: LogTopic, eventTimeMs: number, nowMs: number): void {
    this.watermark.observe(LOG_TOPICS.indexOf(topic), eventTimeMs, nowMs);
  }

  nextOffset(topic: LogTopic): number {
    return this.#inputs[LOG_TOPICS.indexOf(topic)]!.nextOffset;
  }

  numBuffered(topic: LogTopic): number {
    return this.#inputs[LOG_TOPICS.indexOf(topic)]!.length;
  }

  /** Whether every position has reached these offsets. */
  reached(end: Readonly<Record<LogTopic, number>>): boolean {
    return LOG_TOPICS.every((topic) => this.nextOffset(topic) >= end[topic]);
  }
}
