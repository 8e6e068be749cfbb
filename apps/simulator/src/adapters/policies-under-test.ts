/** Asks the retrievers of the closed loop, with the histories that a shop would keep of its users. */
import type { HistoryEvent, UserHistory } from '@onemall/contracts';
import type { Logger } from '@onemall/service-kit';
import type { Ask } from '../world/arms.ts';
import type { Catalogue } from '../world/catalogue.ts';
import type { WorldRecord } from '../world/world.ts';

const KINDS = { exposures: 'exposures', clicks: 'clicks', buys: 'buys' } as const;
/** One failure in so many is logged: a retriever that is away must not fill the log. */
const LOG_EVERY = 100;

export interface PoliciesOptions {
  catalogue: Catalogue;
  /** POST /retrieve by arm. */
  urls: ReadonlyMap<string, string>;
  historyLength: number;
  timeoutMs: number;
  log: Logger;
}

export class PoliciesUnderTest {
  readonly #options: PoliciesOptions;
  readonly #histories = new Map<string, UserHistory>();
  readonly #roomCategories = new Map<string, string>();
  #failures = 0;

  constructor(options: PoliciesOptions) {
    this.#options = options;
  }

  /** Remembers what a user saw and did; copies are remembered once. */
  follow({ topic, value }: WorldRecord): void {
    if (topic === 'items') this.#roomCategories.set(value.itemId, value.category);
    if (topic === 'items' || topic === 'live-product-changes') return;
    const { userId, itemId, eventTimeMs } = value;
    let history = this.#histories.get(userId);
    if (!history) {
      history = { exposures: [], clicks: [], buys: [] };
      this.#histories.set(userId, history);
    }
    const events = history[KINDS[topic]];
    if (events.some((e) => e.itemId === itemId && e.eventTimeMs === eventTimeMs)) return;
    let at = 0;
    while (at < events.length && events[at]!.eventTimeMs > eventTimeMs) at++;
    events.splice(at, 0, { itemId, eventTimeMs, category: this.#category(itemId) });
    if (events.length > this.#options.historyLength) events.pop();
  }

  historyOf(userId: string, beforeMs: number): UserHistory {
    const before = (events: readonly HistoryEvent[] = []): HistoryEvent[] =>
      events.filter((e) => e.eventTimeMs < beforeMs);
    const { exposures, clicks, buys } = this.#histories.get(userId) ?? {};
    return { exposures: before(exposures), clicks: before(clicks), buys: before(buys) };
  }

  /** The items of the arm's policy, best first; none where it fails or is too slow, which is logged. */
  async itemsFor(ask: Ask, k: number): Promise<string[]> {
    const { urls, timeoutMs, log } = this.#options;
    const { arm, scenario, userId, requestTimeMs } = ask;
    try {
      const response = await fetch(urls.get(arm)!, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          scenario,
          userId,
          requestTimeMs,
          history: this.historyOf(userId, requestTimeMs),
          k,
        }),
        signal: AbortSignal.timeout(timeoutMs),
      });
      if (!response.ok) throw new Error(`${response.status}: ${(await response.text()).slice(0, 300)}`);
      const { items } = (await response.json()) as { items: { itemId: string }[] };
      return items.map(({ itemId }) => itemId);
    } catch (error) {
      if (this.#failures++ % LOG_EVERY === 0)
        log.warn(
          { arm, url: urls.get(arm), failures: this.#failures, error: (error as Error).message },
          'no answer of an arm; the logging policy serves',
        );
      return [];
    }
  }

  #category(itemId: string): string {
    const { catalogue } = this.#options;
    const index = catalogue.indexOf(itemId);
    return index < 0 ? (this.#roomCategories.get(itemId) ?? '') : catalogue.facts(index).category;
  }
}
