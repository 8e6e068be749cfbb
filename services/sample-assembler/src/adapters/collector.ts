/** What is asked of V8's garbage collector, since the state of a join lies outside its heap. */
import { PerformanceObserver } from 'node:perf_hooks';
import v8 from 'node:v8';

/** Both halves. Half of it lets objects of a few milliseconds live long enough to move to the old generation. */
const LARGEST_YOUNG_BYTES = 16 << 20;

/**
 * Keeps the young generation small. It grows to 128 MiB where much is allocated for a moment, which a process whose
 * state lies outside the heap pays in resident memory and gains nothing by. `--max-semi-space-size` would do the same, but
 * only as an argument of whoever starts the process. From the collection on after which it has reached its size it does not
 * grow any more.
 */
export function boundYoungGeneration(): void {
  const watch = new PerformanceObserver(() => {
    if (youngGenerationBytes() < LARGEST_YOUNG_BYTES) return;
    // V8 multiplies by this at the next growth.
    v8.setFlagsFromString('--semi-space-growth-factor=1');
    watch.disconnect();
  });
  watch.observe({ entryTypes: ['gc'] });
}

export const youngGenerationBytes = (): number =>
  v8.getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')?.space_size ?? 0;

/**
 * Slabs and columns count as promoted, so that with a heap of 22 MiB V8 began a full collection for every 8 MiB that the state
 * grew, and found nothing to free. Now the heap with all that counts as promoted may double first.
 */
export function spaceOutFullCollections(): void {
  v8.setFlagsFromString('--heap-growing-percent=100');
}
