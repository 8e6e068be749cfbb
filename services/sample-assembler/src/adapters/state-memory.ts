/** What the partitions of this instance hold together, against the limit above which all of them read slowly. */
export class StateMemory {
  readonly #maxBytes: number;
  readonly #bytes = new Map<number, number>();

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get isAboveLimit(): boolean {
    return this.#bytes.values().reduce((sum, bytes) => sum + bytes, 0) > this.#maxBytes;
  }
  holds(partition: number, bytes: number): void {
    this.#bytes.set(partition, bytes);
  }
  letsGo(partition: number): void {
    this.#bytes.delete(partition);
  }
}
