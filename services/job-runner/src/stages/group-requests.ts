import type { TrainingSample, UserHistory } from '@onemall/contracts';
import { isHeldBack } from '@onemall/service-kit';

/** One page that was asked for, with what became of it. */
export interface LoggedRequest {
  requestId: string;
  userId: string;
  scenario: string;
  requestTimeMs: number;
  history: UserHistory;
  /** Items shown, and those of them that were clicked. */
  viewed: Set<string>;
  clicked: Set<string>;
}

/**
 * Held-back requests with a click, newest first, and the clicks per item by scenario of all other requests (the
 * popularity that a model may know). Only FINAL samples count: one per exposure.
 */
export function groupRequests(
  samples: Iterable<TrainingSample>,
  heldBackFraction: number,
): { requests: LoggedRequest[]; clicksByItem: Map<string, Map<string, number>> } {
  const requests = new Map<string, LoggedRequest>();
  const clicksByItem = new Map<string, Map<string, number>>();
  for (const { kind, exposure, clicked, history } of samples) {
    if (kind !== 'FINAL') continue;
    const { requestId, userId, scenario, requestTimeMs, itemId } = exposure;
    if (!isHeldBack(requestId, heldBackFraction)) {
      if (!clicked) continue;
      const clicks = clicksByItem.get(scenario) ?? new Map<string, number>();
      clicksByItem.set(scenario, clicks.set(itemId, (clicks.get(itemId) ?? 0) + 1));
      continue;
    }
    // One request is one scenario; a page that mixes them counts as one request for each.
    const key = `${scenario}\n${requestId}`;
    let request = requests.get(key);
    if (!request) {
      request = {
        requestId,
        userId,
        scenario,
        requestTimeMs,
        history,
        viewed: new Set(),
        clicked: new Set(),
      };
      requests.set(key, request);
    }
    request.viewed.add(itemId);
    if (clicked) request.clicked.add(itemId);
  }
  const withClick = [...requests.values()].filter((request) => request.clicked.size > 0);
  withClick.sort((a, b) => b.requestTimeMs - a.requestTimeMs || (a.requestId < b.requestId ? -1 : 1));
  return { requests: withClick, clicksByItem };
}
