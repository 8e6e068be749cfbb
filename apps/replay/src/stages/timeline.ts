/** When each event of the log is sent: a map from times of the log to milliseconds since the replay began. */

const MAX_KEPT = 32_768;

/** Keeps every 2^k-th of a rising series of times, so that any log has a small picture of its density. */
export class TimeSampler {
  times: number[] = [];
  #stride = 1;
  #seen = 0;
  /** @param timeMs not below the one before */
  add(timeMs: number): void {
    if (this.#seen++ % this.#stride !== 0) return;
    this.times.push(timeMs);
    if (this.times.length < MAX_KEPT) return;
    this.times = this.times.filter((_, i) => i % 2 === 0);
    this.#stride *= 2;
  }
  get count(): number {
    return this.#seen;
  }
  get stride(): number {
    return this.#stride;
  }
}

export interface Timeline {
  /** Milliseconds after the replay's beginning; never falls as timeMs rises. */
  offsetMs(timeMs: number): number;
}

/** Distances of the log divided by the speed-up. */
export const fixedTimeline = (firstMs: number, speedUp: number): Timeline => ({
  offsetMs: (timeMs) => (timeMs - firstMs) / speedUp,
});

/** Pieces of a rate timeline: enough to follow a log's days and nights, few enough to keep sessions together. */
const PIECES = 512;

/**
 * An even rate: the log is cut into pieces of equal numbers of events, and inside a piece time runs evenly. Distances
 * shrink with the local density, so nights do not stall the replay; order is kept.
 */
export function rateTimeline(sampler: TimeSampler, eventsPerS: number): Timeline {
  const { times, stride } = sampler;
  if (times.length === 0) return { offsetMs: () => 0 };
  const step = Math.max(1, Math.floor(times.length / PIECES));
  const knots: { timeMs: number; offsetMs: number }[] = [];
  for (let i = 0; i < times.length; i += step) {
    const knot = { timeMs: times[i]!, offsetMs: (i * stride * 1000) / eventsPerS };
    const last = knots.at(-1);
    // many events at one time: they all leave at once, the pause comes after
    if (last && last.timeMs === knot.timeMs) continue;
    knots.push(knot);
  }
  const perMs = localPace(knots, eventsPerS);
  return {
    offsetMs: (timeMs) => {
      let low = 0;
      let high = knots.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (knots[middle]!.timeMs <= timeMs) low = middle;
        else high = middle - 1;
      }
      const from = knots[low]!;
      const to = knots[low + 1];
      const pace = to ? (to.offsetMs - from.offsetMs) / (to.timeMs - from.timeMs) : perMs;
      return from.offsetMs + (timeMs - from.timeMs) * pace;
    },
  };
}

/** Pace after the last knot: that of the whole, or real time for a log of one moment. */
function localPace(knots: readonly { timeMs: number; offsetMs: number }[], eventsPerS: number): number {
  const first = knots[0]!;
  const last = knots.at(-1)!;
  if (last.timeMs === first.timeMs) return Math.min(1, 1000 / eventsPerS);
  return (last.offsetMs - first.offsetMs) / (last.timeMs - first.timeMs);
}
