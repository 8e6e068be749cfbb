/** Growing columns of numbers: millions of rows without an object each. */
export class Column<A extends Int32Array | Float64Array> {
  #data: A;
  #length = 0;

  private constructor(data: A) {
    this.#data = data;
  }
  static ints(): Column<Int32Array> {
    return new Column(new Int32Array(1024));
  }
  static doubles(): Column<Float64Array> {
    return new Column(new Float64Array(1024));
  }

  get length(): number {
    return this.#length;
  }
  /** @returns the row of the value */
  push(value: number): number {
    if (this.#length === this.#data.length) {
      const grown = new (this.#data.constructor as new (n: number) => A)(2 * this.#length);
      grown.set(this.#data);
      this.#data = grown;
    }
    this.#data[this.#length] = value;
    return this.#length++;
  }
  at(row: number): number {
    return this.#data[row]!;
  }
  set(row: number, value: number): void {
    this.#data[row] = value;
  }
  /** A view of the rows so far; later pushes may leave it behind. */
  rows(): A {
    return this.#data.subarray(0, this.#length) as A;
  }
}
