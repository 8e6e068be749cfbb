/** The closed loop: policies under test answer a share of the requests, the fixed logging policy all others. */
import { hashFraction } from '@onemall/service-kit';
import type { Catalogue } from './catalogue.ts';
import type { ScenarioName } from './logging-policy.ts';
import type { Rooms } from './rooms.ts';

export interface Arm {
  name: string;
  /** Share of all requests. */
  share: number;
}

/** A request that a policy is to answer. */
export interface Ask {
  arm: string;
  requestId: string;
  userId: string;
  scenario: ScenarioName;
  requestTimeMs: number;
}

/** By hash of the request's id: a request is in one arm at most, whatever the user and the time. */
export function armOf(requestId: string, arms: readonly Arm[]): string | null {
  const draw = hashFraction(`arm:${requestId}`);
  let upTo = 0;
  for (const { name, share } of arms) {
    upTo += share;
    if (draw < upTo) return name;
  }
  return null;
}

/** The tag by which queries tell the arms apart; the names of arms hold no @. */
export const taggedId = (requestId: string, arm: string): string => `${requestId}@${arm}`;

/**
 * Item indices, or room rows, of an answer in its order: distinct items of the scenario that exist; at most `count`.
 * What the answer names besides is left out: a room may have ended while the policy thought.
 */
export function pageOfAnswer(
  catalogue: Catalogue,
  rooms: Rooms,
  scenario: ScenarioName,
  itemIds: readonly string[],
  count: number,
): number[] {
  const page: number[] = [];
  for (const itemId of itemIds) {
    if (page.length === count) break;
    const index = catalogue.indexOf(itemId);
    const isVideo = index >= catalogue.numProducts;
    const choice =
      scenario === 'live_stream'
        ? (rooms.byId(itemId)?.row ?? -1)
        : isVideo === (scenario === 'short_video')
          ? index
          : -1;
    if (choice >= 0 && !page.includes(choice)) page.push(choice);
  }
  return page;
}
