import type { HistoryEvent, UserHistory } from '@onemall/contracts';
import { type SidLayout, writeSidRows } from './sid-layout.ts';
import { type BehaviourTensors, NUM_AGE_BUCKETS, type RequestTensors, type SidCodes } from './tensors.ts';

/** What the server knows when it is asked for items. */
export interface RequestContext {
  scenario: string;
  requestTimeMs: number;
  history: UserHistory;
}

/** SID of an item as of the request in the model's codebook version; null where none is known. */
export type LookupSid = (itemId: string) => SidCodes | null;

export interface RequestTensorOptions {
  /** H: events per behaviour. */
  historyLength: number;
  layout: SidLayout;
}

/**
 * Inputs of the user context: the newest H events of each behaviour that happened before the request and whose item has a
 * SID. Events without one are left out, so that older ones move up.
 * @throws Error when the scenario is not in the layout or a SID holds a code outside it
 */
export function requestTensors(
  request: RequestContext,
  lookupSid: LookupSid,
  options: RequestTensorOptions,
): RequestTensors {
  if (!options.layout.offsets.has(request.scenario))
    throw new Error(
      `Request of unknown scenario ${request.scenario}; known: ${options.layout.scenarios.join(', ')}`,
    );
  const { exposures, clicks, buys } = request.history;
  const tensors = (events: readonly HistoryEvent[]) =>
    behaviourTensors(events, request.requestTimeMs, lookupSid, options);
  return {
    scenario: request.scenario,
    behaviours: { exposure: tensors(exposures), click: tensors(clicks), buy: tensors(buys) },
  };
}

function behaviourTensors(
  events: readonly HistoryEvent[],
  requestTimeMs: number,
  lookupSid: LookupSid,
  { historyLength, layout }: RequestTensorOptions,
): BehaviourTensors {
  const codes = new Int32Array(historyLength * 3).fill(-1);
  const ages = new Int32Array(historyLength);
  const scenarios = new Int32Array(historyLength);
  let at = 0;
  for (const event of events) {
    if (at === historyLength) break;
    if (event.eventTimeMs >= requestTimeMs) continue;
    const sid = lookupSid(event.itemId);
    if (!sid) continue;
    writeSidRows(layout, sid, codes, at * 3);
    ages[at] = ageBucket(requestTimeMs - event.eventTimeMs);
    scenarios[at] = layout.scenarios.indexOf(sid.scenario);
    at++;
  }
  return { codes, ages, scenarios };
}

/** floor(log2(1 + seconds)), at most NUM_AGE_BUCKETS - 1. @param ageMs 0 or more */
export function ageBucket(ageMs: number): number {
  return Math.min(NUM_AGE_BUCKETS - 1, Math.floor(Math.log2(1 + ageMs / 1000)));
}
