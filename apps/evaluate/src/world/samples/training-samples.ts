/**
 * The samples of a log, as the join would have made them: the same labels, point-in-time histories and SIDs
 * (test/world/samples.test.ts compares them with the assembler's own join). Made when asked for, from the columns.
 */
import type { ItemFeatures, SampleKind, Sid, TrainingSample } from '@onemall/contracts';
import { type CountedAction, type Labels, labelExposure } from '@onemall/event-time';
import { isHeldBack } from '@onemall/service-kit';
import type { WorldLog } from '../log/world-log.ts';

/** SID of an item as of a moment; null where none is known. */
export type SidAsOf = (item: number, timeMs: number) => Sid | null;

export interface SampleOptions {
  /** H: events of each kind. */
  historyLength: number;
  sidAsOf: SidAsOf;
}

/** Event time at which the FINAL sample of a request's exposures leaves the join, without grace. */
export function closesAtMs(log: WorldLog, request: number): number {
  const { clickWindowMs, buyWindowMs } = log.plan.scenarios[log.scenario(request)]!;
  return log.requests.timeMs.at(request) + Math.max(clickWindowMs, buyWindowMs);
}

/** Rows of the exposures whose first positive left before cutMs, in the order of leaving: what the retriever trains on. */
export function positivesBefore(log: WorldLog, cutMs: number): Int32Array {
  const { clickMs } = log.exposures;
  const rows = Array.from({ length: log.numExposures }, (_, row) => row).filter(
    (row) => clickMs.at(row) > 0 && clickMs.at(row) < cutMs && isTrained(log, row),
  );
  return Int32Array.from(rows.sort((a, b) => clickMs.at(a) - clickMs.at(b) || a - b));
}

/** Rows of the exposures whose FINAL left before cutMs, in the order of leaving: what the ranker trains on. */
export function finalsBefore(log: WorldLog, cutMs: number): Int32Array {
  const closesAt = (row: number): number => closesAtMs(log, log.exposures.request.at(row));
  const rows = Array.from({ length: log.numExposures }, (_, row) => row).filter(
    (row) => closesAt(row) < cutMs && isTrained(log, row),
  );
  return Int32Array.from(rows.sort((a, b) => closesAt(a) - closesAt(b) || a - b));
}

const isTrained = (log: WorldLog, row: number): boolean =>
  !isHeldBack(log.requestId(log.exposures.request.at(row)), log.plan.heldBackFraction);

/** The item as of a moment. */
export function featuresAsOf(log: WorldLog, item: number, timeMs: number): ItemFeatures {
  const { category, tags, priceCents, sellerId, validFromMs } = log.facts(item);
  const sellingItemIds = log.sellingItemIds(item, timeMs);
  return { category, tags, priceCents, sellerId, sellingItemIds, validFromMs };
}

/** @param row of an exposure that has left as this kind by now */
export function trainingSample(
  log: WorldLog,
  row: number,
  kind: SampleKind,
  { historyLength, sidAsOf }: SampleOptions,
): TrainingSample {
  const request = log.exposures.request.at(row);
  const requestTimeMs = log.requests.timeMs.at(request);
  const item = log.exposures.item.at(row);
  const actions = actionsOf(log, row);
  const cause = kind === 'FINAL' ? null : actions.find((a) => a.kind === kind);
  if (cause === undefined) throw new Error(`Exposure ${row} has no ${kind}`);
  const labels: Labels = labelExposure(requestTimeMs, actions, cause);
  return {
    exposure: log.exposure(row),
    kind,
    firstPositive: cause !== null && cause === actions[0],
    ...labels,
    sid: sidAsOf(item, requestTimeMs),
    item: featuresAsOf(log, item, requestTimeMs),
    history: log.historyBefore(request, historyLength),
    watermarkMs: cause ? Math.max(cause.timeMs, requestTimeMs) : closesAtMs(log, request),
  };
}

/** Click and buy of an exposure, if any. */
function actionsOf({ exposures }: WorldLog, row: number): CountedAction[] {
  const actions: CountedAction[] = [];
  const clickMs = exposures.clickMs.at(row);
  const buyMs = exposures.buyMs.at(row);
  if (clickMs > 0) actions.push({ kind: 'CLICK', timeMs: clickMs, valueCents: 0, quantity: 0 });
  if (buyMs > 0) {
    const quantity = exposures.buyQuantity.at(row);
    actions.push({
      kind: 'BUY',
      timeMs: buyMs,
      valueCents: exposures.buyPriceCents.at(row) * quantity,
      quantity,
    });
  }
  return actions;
}
