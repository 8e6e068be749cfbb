/** When the records of a partition were surely visible to readers, who see a transaction only once it has ended. */
import type { TransactionEnd } from '@onemall/kafka-io';

/** A record outside a transaction bears its producer's time and is visible with its append, which a stalled broker holds up. */
const APPENDED_AFTER_MS = 5_000;

export interface WrittenRecord {
  offset: number;
  timestampMs: number;
  /** -1 outside a transaction. */
  producerId: number;
}

/**
 * A record is visible when its own transaction has ended and every other that was open before it. Of one without a record
 * that is left, aborted or compacted, only the end is known: it may have begun right after the producer's previous end.
 * @param records of one partition, by offset
 * @param ends of the same partition, by offset
 * @returns milliseconds for each record, by the broker's clock; MAX_SAFE_INTEGER where the end is not in the log yet
 */
export function visibleTimes(records: readonly WrittenRecord[], ends: readonly TransactionEnd[]): number[] {
  /** What holds up readers from an offset on. */
  const holds: { from: number; untilMs: number }[] = [];
  const open = new Map<number, { from: number; untilMs: number }[]>();
  const endedAt = new Map<number, number>();
  let nextEnd = 0;
  const takeEndsBefore = (offset: number): void => {
    for (; nextEnd < ends.length && ends[nextEnd]!.offset < offset; nextEnd++) {
      const end = ends[nextEnd]!;
      const held = open.get(end.producerId);
      for (const hold of held ?? []) hold.untilMs = end.timestampMs;
      if (!held) holds.push({ from: (endedAt.get(end.producerId) ?? -1) + 1, untilMs: end.timestampMs });
      open.delete(end.producerId);
      endedAt.set(end.producerId, end.offset);
    }
  };
  for (const { offset, timestampMs, producerId } of records) {
    takeEndsBefore(offset);
    const isOutside = producerId < 0;
    const untilMs = isOutside ? timestampMs + APPENDED_AFTER_MS : Number.MAX_SAFE_INTEGER;
    const hold = { from: offset, untilMs };
    holds.push(hold);
    if (isOutside) continue;
    const held = open.get(producerId);
    if (held) held.push(hold);
    else open.set(producerId, [hold]);
  }
  takeEndsBefore(Number.POSITIVE_INFINITY);

  holds.sort((a, b) => a.from - b.from);
  let next = 0;
  let untilMs = 0;
  return records.map(({ offset }) => {
    while (next < holds.length && holds[next]!.from <= offset)
      untilMs = Math.max(untilMs, holds[next++]!.untilMs);
    return untilMs;
  });
}
