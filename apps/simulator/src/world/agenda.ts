/** What is to happen, earliest first; equal times in the order of being added. */
export class Agenda<T> {
  #at: number[] = [];
  #order: number[] = [];
  #what: T[] = [];
  #added = 0;

  get size(): number {
    return this.#at.length;
  }
  /** Time of the earliest entry; Infinity when empty. */
  get nextAt(): number {
    return this.#at.length > 0 ? this.#at[0]! : Number.POSITIVE_INFINITY;
  }
  peek(): T | undefined {
    return this.#what[0];
  }

  add(at: number, what: T): void {
    let i = this.#at.length;
    const order = this.#added++;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!this.#after(parent, at, order)) break;
      this.#move(parent, i);
      i = parent;
    }
    this.#set(i, at, order, what);
  }

  /** @throws Error when empty */
  take(): T {
    const first = this.#what[0];
    const at = this.#at.pop();
    const order = this.#order.pop()!;
    const what = this.#what.pop()!;
    if (at === undefined) throw new Error('The agenda is empty');
    const length = this.#at.length;
    if (length === 0) return what;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= length) break;
      if (child + 1 < length && this.#after(child, this.#at[child + 1]!, this.#order[child + 1]!)) child++;
      if (this.#after(child, at, order)) break;
      this.#move(child, i);
      i = child;
    }
    this.#set(i, at, order, what);
    return first!;
  }

  /** True if the entry at i comes after (at, order). */
  #after(i: number, at: number, order: number): boolean {
    return this.#at[i]! > at || (this.#at[i]! === at && this.#order[i]! > order);
  }
  #move(from: number, to: number): void {
    this.#at[to] = this.#at[from]!;
    this.#order[to] = this.#order[from]!;
    this.#what[to] = this.#what[from]!;
  }
  #set(i: number, at: number, order: number, what: T): void {
    this.#at[i] = at;
    this.#order[i] = order;
    this.#what[i] = what;
  }
}
