/**
 * What one training step used, written before the step and read again after a crash, so that the step is the same.
 */
import type { OffsetRange } from './draw-batch.ts';

/** A reward group by its place in reward-batches. */
export interface GroupPlace {
  requestId: string;
  partition: number;
  offset: number;
}

export interface StepManifest {
  step: number;
  /** What decides which samples make up the ranges: a manifest of other settings is not replayed. */
  settings: string;
  /** training-samples. */
  ranges: OffsetRange[];
  /** Partition index whose turn is next after this batch. */
  cursor: number;
  /** Samples in the batch; fewer than B in a partial one. */
  numSamples: number;
  groups: GroupPlace[];
  /** How far the SID tables had been read, by `topic-partition`; for looking into differences of live runs. */
  tableOffsets: Record<string, number>;
}

/**
 * The manifests that can be replayed after a checkpoint: consecutive steps, each beginning where the last one ended.
 * The rest belongs to another past (another checkpoint, another run) and is dropped.
 *
 * replayable([step 4, step 5, step 7], after step 4 at the offsets where 5 begins) gives [step 5].
 */
export function replayable(
  manifests: readonly StepManifest[],
  afterStep: number,
  positions: ReadonlyMap<number, number>,
  settings: string,
): StepManifest[] {
  const byStep = new Map(manifests.map((m) => [m.step, m]));
  const at = new Map(positions);
  const usable: StepManifest[] = [];
  for (let step = afterStep + 1; ; step++) {
    const manifest = byStep.get(step);
    if (!manifest || manifest.settings !== settings || manifest.ranges.length !== at.size) return usable;
    if (manifest.ranges.some((r) => at.get(r.partition) !== r.from || r.to < r.from)) return usable;
    for (const r of manifest.ranges) at.set(r.partition, r.to);
    usable.push(manifest);
  }
}

const isRange = (r: unknown): boolean => {
  const range = r as Partial<OffsetRange> | null;
  return (
    Number.isSafeInteger(range?.partition) &&
    Number.isSafeInteger(range?.from) &&
    Number.isSafeInteger(range?.to)
  );
};

/** One line of the journal, or null if it was torn by a crash or is no manifest. */
export function parseManifest(line: string): StepManifest | null {
  try {
    const m = JSON.parse(line) as StepManifest;
    const whole =
      Number.isSafeInteger(m.step) &&
      Number.isSafeInteger(m.cursor) &&
      Array.isArray(m.ranges) &&
      m.ranges.every(isRange) &&
      Array.isArray(m.groups);
    return whole ? m : null;
  } catch {
    return null; // a half-written last line: its step had not begun
  }
}
