/** When the log hands over an event: at once, a little out of order, twice, or too late. Shares are of all log events. */
import type { SeededRandom } from '@onemall/service-kit';

export interface Disorder {
  outOfOrderShare: number;
  /** An out-of-order event comes up to this much later than it happened. */
  outOfOrderMs: number;
  duplicateShare: number;
  /** A copy comes up to this much after the original. */
  duplicateMs: number;
  lateShare: number;
  /** A late event comes between this and twice this after it happened. */
  lateMs: number;
  /** Share of clicks and buys that do not say which exposure they belong to. */
  missingExposureIdShare: number;
}
export const IN_ORDER: Disorder = {
  outOfOrderShare: 0,
  outOfOrderMs: 0,
  duplicateShare: 0,
  duplicateMs: 0,
  lateShare: 0,
  lateMs: 0,
  missingExposureIdShare: 0,
};

export interface Handover {
  delayMs: number;
  /** Time between original and copy; null where there is no copy. */
  copyAfterMs: number | null;
  late: boolean;
}

/** Three draws for every event whatever the shares, so that turning one effect off leaves the others as they were. */
export function drawHandover(d: Disorder, random: SeededRandom): Handover {
  const kind = random.next();
  const amount = random.next();
  const copy = random.next();
  const late = kind < d.lateShare;
  const outOfOrder = !late && kind < d.lateShare + d.outOfOrderShare;
  return {
    delayMs: late ? d.lateMs * (1 + amount) : outOfOrder ? d.outOfOrderMs * amount : 0,
    copyAfterMs: copy < d.duplicateShare ? d.duplicateMs * amount : null,
    late,
  };
}
