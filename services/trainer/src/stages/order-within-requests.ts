/**
 * RL's start condition (model.md, RL): a ranker rewards a scenario once it is sure that its reward orders what one request
 * shows. Groups are candidates of one request, and their advantages come from nothing else.
 */
import type { RequestOrder } from '@onemall/learning';

/** Fewer requests have no interval worth the name. */
const LEAST_REQUESTS = 30;
/** Standard errors of a 95 % interval. */
const INTERVAL = 1.96;

/** Lower end of the 95 % interval of the mean rank correlation; null while too few requests tell. */
export const surelyAbove = (order: RequestOrder | null): number | null =>
  order && order.requests >= LEAST_REQUESTS ? order.mean - INTERVAL * order.error : null;

/** @param least -1 asks for nothing */
export function rewardsScenario(order: RequestOrder | null, least: number): boolean {
  if (least <= -1) return true;
  const low = surelyAbove(order);
  return low !== null && low >= least;
}
