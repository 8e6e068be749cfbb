/** Encoded samples one after the other, with an index of where key and value of each lie. */
import { AvroWriter } from '../bytes/avro.ts';

export class SampleBlock {
  readonly writer: AvroWriter;
  readonly valueStart: number[] = [];
  readonly valueEnd: number[] = [];
  /** The user's id, which is a part of the value. */
  readonly keyStart: number[] = [];
  readonly keyLength: number[] = [];
  /** When its cause came: append time of the action for CLICK and BUY, clock time of the watermark for FINAL. */
  readonly causeMs: number[] = [];

  constructor(capacity = 4096) {
    this.writer = new AvroWriter(capacity);
  }
  /** Empty again, with the memory that it has. */
  clear(): void {
    this.writer.at = 0;
    for (const list of [this.valueStart, this.valueEnd, this.keyStart, this.keyLength, this.causeMs])
      list.length = 0;
  }
  get count(): number {
    return this.valueStart.length;
  }
  get sizeBytes(): number {
    return this.writer.at;
  }
  get bytes(): Uint8Array {
    return this.writer.bytes;
  }
}
