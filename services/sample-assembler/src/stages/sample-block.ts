/** Encoded samples one after the other, with an index of where key and value of each lie. */
import { AvroWriter } from '../bytes/avro.ts';

const FIRST_SAMPLES = 64;

export class SampleBlock {
  readonly writer: AvroWriter;
  /** The first `count` of each column are in use. */
  valueStart = new Int32Array(FIRST_SAMPLES);
  valueEnd = new Int32Array(FIRST_SAMPLES);
  /** The user's id, which is a part of the value. */
  keyStart = new Int32Array(FIRST_SAMPLES);
  keyLength = new Int32Array(FIRST_SAMPLES);
  /** When its cause came: append time of the action for CLICK and BUY, clock time of the watermark for FINAL. */
  causeMs = new Float64Array(FIRST_SAMPLES);
  #count = 0;

  constructor(capacity = 4096) {
    this.writer = new AvroWriter(capacity);
  }

  /** Takes the sample that was just written. @param valueStart where it begins; it ends where the writer is */
  add(valueStart: number, keyStart: number, keyLength: number, causeMs: number): void {
    const at = this.#count++;
    if (at === this.causeMs.length) this.#grow();
    this.valueStart[at] = valueStart;
    this.valueEnd[at] = this.writer.at;
    this.keyStart[at] = keyStart;
    this.keyLength[at] = keyLength;
    this.causeMs[at] = causeMs;
  }

  /** When the causes of some of the samples came, at most so many and evenly spread. */
  someCauses(most: number): number[] {
    const step = Math.max(1, Math.ceil(this.#count / most));
    return Array.from({ length: Math.ceil(this.#count / step) }, (_, i) => this.causeMs[i * step]!);
  }

  /** Empty again, with the memory that it has. */
  clear(): void {
    this.writer.at = 0;
    this.#count = 0;
  }
  get count(): number {
    return this.#count;
  }
  get sizeBytes(): number {
    return this.writer.at;
  }
  get bytes(): Uint8Array {
    return this.writer.bytes;
  }

  #grow(): void {
    const capacity = 2 * this.causeMs.length;
    const larger = (column: Int32Array): Int32Array<ArrayBuffer> => {
      const to = new Int32Array(capacity);
      to.set(column);
      return to;
    };
    this.valueStart = larger(this.valueStart);
    this.valueEnd = larger(this.valueEnd);
    this.keyStart = larger(this.keyStart);
    this.keyLength = larger(this.keyLength);
    const causeMs = new Float64Array(capacity);
    causeMs.set(this.causeMs);
    this.causeMs = causeMs;
  }
}
