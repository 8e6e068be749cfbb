/** How often something happened in the last minute, in seconds' resolution. */
export class RecentCount {
  readonly #perSecond = new Map<number, number>();

  add(nowMs: number, count = 1): void {
    const second = Math.floor(nowMs / 1000);
    this.#perSecond.set(second, (this.#perSecond.get(second) ?? 0) + count);
  }
  lastMinute(nowMs: number): number {
    const oldest = Math.floor(nowMs / 1000) - 60;
    let sum = 0;
    for (const [second, count] of this.#perSecond) {
      if (second <= oldest) this.#perSecond.delete(second);
      else sum += count;
    }
    return sum;
  }
}
