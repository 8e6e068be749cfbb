import type { StreamedSample } from '@onemall/contracts';

/**
 * The newest held-back samples by scenario, as the model reads them. They train nothing. A restart begins with none:
 * until there are enough again no model that replaces a published one is published.
 */
export class HeldBackSlice<E> {
  readonly #perScenario: number;
  readonly #encode: (sample: StreamedSample) => E | null;
  #waiting: StreamedSample[] = [];
  readonly #kept = new Map<string, E[]>();

  /**
   * @param perScenario samples kept of each scenario
   * @param encode null for one that the model cannot be asked about
   */
  constructor(perScenario: number, encode: (sample: StreamedSample) => E | null) {
    this.#perScenario = perScenario;
    this.#encode = encode;
  }

  add(sample: StreamedSample): void {
    this.#waiting.push(sample);
    if (this.#waiting.length > 4 * this.#perScenario) this.encodeWaiting();
  }

  /** Turns what came since into tensors: while the SID tables still hold the versions of their requests. */
  encodeWaiting(): void {
    const samples = this.#waiting;
    this.#waiting = [];
    for (const sample of samples) {
      const encoded = this.#encode(sample);
      if (encoded === null) continue;
      const { scenario } = sample.exposure;
      const kept = this.#kept.get(scenario) ?? [];
      kept.push(encoded);
      if (kept.length > this.#perScenario) kept.shift();
      this.#kept.set(scenario, kept);
    }
  }

  /** By scenario, oldest first. */
  get samples(): ReadonlyMap<string, readonly E[]> {
    return this.#kept;
  }
  get size(): number {
    let size = 0;
    for (const kept of this.#kept.values()) size += kept.length;
    return size;
  }
}
