/** What a soak has measured, beside the oracle's verdict: pauses of partitions and the memory of instances. */

/** A change of the number of instances, and the time after it in which nothing else was done to them. */
export interface Change {
  what: string;
  beganMs: number;
  quietUntilMs: number;
}
export interface Pause extends Change {
  /** The longest time in which one partition gave no sample, and which one. */
  pauseMs: number;
  partition: number;
}

/**
 * The longest pause of a partition from each change to the end of its quiet time: what goes on after that is put down to what was
 * done next.
 * @param leftMs append times of the samples of each partition, ascending
 */
export function pausesAfter(
  changes: readonly Change[],
  leftMs: ReadonlyMap<number, readonly number[]>,
): Pause[] {
  return changes.map((change) => {
    let longest: Pause = { ...change, pauseMs: 0, partition: -1 };
    for (const [partition, times] of leftMs)
      for (let i = 1; i < times.length; i++) {
        const [from, to] = [times[i - 1]!, Math.min(times[i]!, change.quietUntilMs)];
        if (to < change.beganMs || from > to) continue;
        if (to - from > longest.pauseMs) longest = { ...change, pauseMs: to - from, partition };
      }
    return longest;
  });
}

export interface MemorySample {
  atMs: number;
  rssBytes: number;
}

/** Bytes per hour by least squares, without the first share of the time, in which a process fills its caches. */
export function memorySlope(samples: readonly MemorySample[], warmUpShare = 0.3): number | null {
  const first = samples[0];
  const last = samples.at(-1);
  if (!first || !last) return null;
  const fromMs = first.atMs + (last.atMs - first.atMs) * warmUpShare;
  const late = samples.filter((s) => s.atMs >= fromMs);
  if (late.length < 5) return null;
  const meanAt = late.reduce((sum, s) => sum + s.atMs, 0) / late.length;
  const meanRss = late.reduce((sum, s) => sum + s.rssBytes, 0) / late.length;
  let above = 0;
  let below = 0;
  for (const { atMs, rssBytes } of late) {
    above += (atMs - meanAt) * (rssBytes - meanRss);
    below += (atMs - meanAt) ** 2;
  }
  return below === 0 ? null : (above / below) * 3_600_000;
}
