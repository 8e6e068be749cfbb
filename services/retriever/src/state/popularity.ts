/**
 * How often items are shown and clicked, halved every `halfLifeMs` of event time. Counts are kept as if they all
 * decayed to one common moment (forward decay), so that nothing has to be touched as time passes.
 */
export class Popularity {
  readonly #halfLifeMs: number;
  #scores = new Map<string, number>();
  /** Moment at which a new count weighs 1. */
  #landmarkMs: number | undefined;
  #newestMs = Number.NEGATIVE_INFINITY;

  constructor(halfLifeMs: number) {
    if (!(halfLifeMs > 0)) throw new RangeError(`halfLifeMs must be positive, got ${halfLifeMs}`);
    this.#halfLifeMs = halfLifeMs;
  }

  /** One closed exposure: a click weighs as much as `CLICK_WEIGHT` exposures. */
  count(itemId: string, clicked: boolean, eventTimeMs: number): void {
    this.#landmarkMs ??= eventTimeMs;
    this.#newestMs = Math.max(this.#newestMs, eventTimeMs);
    if (eventTimeMs - this.#landmarkMs > 500 * this.#halfLifeMs) this.#moveLandmark(eventTimeMs);
    const weight = 2 ** ((eventTimeMs - this.#landmarkMs) / this.#halfLifeMs);
    this.#scores.set(itemId, (this.#scores.get(itemId) ?? 0) + weight * (clicked ? 1 + CLICK_WEIGHT : 1));
  }

  /** Comparable between items at any one moment; 0 for an item never shown. */
  of(itemId: string): number {
    return this.#scores.get(itemId) ?? 0;
  }

  /** As a count of exposures of the moment of the newest one: what `1 +` may be added to. */
  countOf(itemId: string): number {
    const score = this.#scores.get(itemId);
    return score === undefined ? 0 : score * 2 ** ((this.#landmarkMs! - this.#newestMs) / this.#halfLifeMs);
  }

  /** Before 2^x overflows: everything is expressed at a later moment, and what has faded to nothing is dropped. */
  #moveLandmark(toMs: number): void {
    const factor = 2 ** ((this.#landmarkMs! - toMs) / this.#halfLifeMs);
    const moved = new Map<string, number>();
    for (const [itemId, score] of this.#scores) if (score * factor > 1e-9) moved.set(itemId, score * factor);
    this.#scores = moved;
    this.#landmarkMs = toMs;
  }
}

const CLICK_WEIGHT = 10;
