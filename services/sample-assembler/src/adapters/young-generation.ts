/**
 * Keeps V8's young generation small. It grows to 128 MiB where much is allocated for a moment, which a process whose
 * state lies outside the heap pays in resident memory and gains nothing by. `--max-semi-space-size` would do the same, but
 * only as an argument of whoever starts the process.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import v8 from 'node:v8';

/** Both halves. Half of it lets objects of a few milliseconds live long enough to move to the old generation. */
const LARGEST_BYTES = 16 << 20;

/** From the collection on after which it has reached its size it does not grow any more. */
export function boundYoungGeneration(): void {
  const watch = new PerformanceObserver(() => {
    if (youngGenerationBytes() < LARGEST_BYTES) return;
    // V8 multiplies by this at the next growth.
    v8.setFlagsFromString('--semi-space-growth-factor=1');
    watch.disconnect();
  });
  watch.observe({ entryTypes: ['gc'] });
}

export const youngGenerationBytes = (): number =>
  v8.getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')?.space_size ?? 0;
