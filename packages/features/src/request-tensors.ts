import type { HistoryEvent, HistoryEvents } from '@onemall/contracts';
import { type SidLayout, writeSidRows } from './sid-layout.ts';
import {
  BEHAVIOURS,
  type BehaviourTensors,
  NUM_AGE_BUCKETS,
  type RequestTensors,
  type SidCodes,
} from './tensors.ts';

/** What the server knows when it is asked for items. */
export interface RequestContext {
  scenario: string;
  requestTimeMs: number;
  history: HistoryEvents;
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
  const { historyLength } = options;
  // One piece of memory for the nine arrays: samples are made by the thousand, and memory of its own costs more than what is in it.
  const memory = new Int32Array(BEHAVIOURS.length * NUMBERS_PER_EVENT * historyLength);
  const tensors = (events: Iterable<HistoryEvent>, behaviour: number) => {
    const at = behaviour * NUMBERS_PER_EVENT * historyLength;
    const part = (from: number, to: number) =>
      memory.subarray(at + from * historyLength, at + to * historyLength);
    const empty = { codes: part(0, 3).fill(-1), ages: part(3, 4), scenarios: part(4, 5) };
    return writeEvents(empty, events, request.requestTimeMs, lookupSid, options);
  };
  return {
    scenario: request.scenario,
    behaviours: { exposure: tensors(exposures, 0), click: tensors(clicks, 1), buy: tensors(buys, 2) },
  };
}

/** Three codes, the age and the scenario. */
const NUMBERS_PER_EVENT = 5;

function writeEvents(
  into: BehaviourTensors,
  events: Iterable<HistoryEvent>,
  requestTimeMs: number,
  lookupSid: LookupSid,
  { historyLength, layout }: RequestTensorOptions,
): BehaviourTensors {
  let at = 0;
  for (const event of events) {
    if (at === historyLength) break;
    if (event.eventTimeMs >= requestTimeMs) continue;
    const sid = lookupSid(event.itemId);
    if (!sid) continue;
    writeSidRows(layout, sid, into.codes, at * 3);
    into.ages[at] = ageBucket(requestTimeMs - event.eventTimeMs);
    into.scenarios[at] = layout.scenarios.indexOf(sid.scenario);
    at++;
  }
  return into;
}

/** floor(log2(1 + seconds)), at most NUM_AGE_BUCKETS - 1. @param ageMs 0 or more */
export function ageBucket(ageMs: number): number {
  return Math.min(NUM_AGE_BUCKETS - 1, Math.floor(Math.log2(1 + ageMs / 1000)));
}
