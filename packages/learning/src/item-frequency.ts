import { hashFeature } from '@onemall/features';

/** Share of a new gap in the running estimate. */
const RATE = 0.05;

/**
 * How often each item comes up as a target, estimated from the stream: the mean number of steps between its appearances
 * (Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling", algorithm 2), in hashed buckets. Its state is part of the
 * checkpoint, so that a resumed run sees the same corrections.
 */
export class ItemFrequency {
  /** Step of the last appearance plus 1, and the mean gap; 0 where never seen. float32 [buckets] */
  readonly lastStep: Float32Array;
  readonly gap: Float32Array;

  constructor(buckets: number) {
    this.lastStep = new Float32Array(buckets);
    this.gap = new Float32Array(buckets);
  }

  /**
   * Counts the targets of a step, each distinct one once.
   * @returns log q per target, and what undoes the count
   */
  observe(keys: readonly string[], step: number): { logQ: Float32Array; undo: () => void } {
    const buckets = keys.map((key) => hashFeature('frequency', key) % this.gap.length);
    const before = new Map<number, readonly [number, number]>();
    for (const bucket of new Set(buckets)) {
      const last = this.lastStep[bucket]!;
      const mean = this.gap[bucket]!;
      before.set(bucket, [last, mean]);
      // Never seen in the steps so far: they are the best guess of its gap.
      this.gap[bucket] = last === 0 ? step + 1 : (1 - RATE) * mean + RATE * (step + 1 - last);
      this.lastStep[bucket] = step + 1;
    }
    return {
      logQ: Float32Array.from(buckets, (bucket) => -Math.log(this.gap[bucket]!)),
      undo: () => {
        for (const [bucket, [last, mean]] of before) {
          this.lastStep[bucket] = last;
          this.gap[bucket] = mean;
        }
      },
    };
  }
}
