/**
 * The join as slow and obvious as it gets: all events of a partition at once, nested loops, no time. It says what must
 * leave when no event is further out of order than the bound.
 */
import type { Buy, Click, Exposure, TrainingSample } from '@onemall/contracts';
import type { AttributionRules } from '@onemall/event-time';
import type { PlainCatalogue } from './plain/make-sample.ts';
import type { LogEvent } from './traffic.ts';

export type ReferenceSample = Omit<TrainingSample, 'watermarkMs'>;
export interface Reference {
  samples: ReferenceSample[];
  /** `topic actionId` of actions that no exposure explains. */
  orphans: string[];
  duplicates: number;
}

type Action = (Click | Buy) & { kind: 'CLICK' | 'BUY'; cents: number; count: number };

export function referenceJoin(
  events: readonly LogEvent[],
  rules: AttributionRules,
  options: { historyLength: number; emitPositives: boolean; catalogue: PlainCatalogue },
): Reference {
  const exposures = new Map<string, Exposure>();
  const actions = new Map<string, Action>();
  let duplicates = 0;
  for (const { topic, value } of events) {
    const known =
      topic === 'exposures' ? exposures.has(value.exposureId) : actions.has(`${topic} ${value.actionId}`);
    if (known) duplicates++;
    else if (topic === 'exposures') exposures.set(value.exposureId, value);
    else if (topic === 'clicks')
      actions.set(`${topic} ${value.actionId}`, { ...value, kind: 'CLICK', cents: 0, count: 0 });
    else
      actions.set(`${topic} ${value.actionId}`, {
        ...value,
        kind: 'BUY',
        cents: value.priceCents * value.quantity,
        count: value.quantity,
      });
  }

  const isInWindow = (e: Exposure, a: Action): boolean => {
    const { clickWindowMs, buyWindowMs } = rules.scenarios[e.scenario]!;
    const delay = a.eventTimeMs - e.eventTimeMs;
    return delay >= -rules.outOfOrdernessMs && delay <= (a.kind === 'CLICK' ? clickWindowMs : buyWindowMs);
  };
  const exposureOf = (a: Action): Exposure | undefined => {
    if (a.exposureId !== null) {
      const named = exposures.get(a.exposureId);
      return named && named.userId === a.userId && isInWindow(named, a) ? named : undefined;
    }
    return [...exposures.values()]
      .filter((e) => e.userId === a.userId && e.itemId === a.itemId)
      .filter((e) => e.eventTimeMs <= a.eventTimeMs && isInWindow(e, a))
      .sort((x, y) => x.eventTimeMs - y.eventTimeMs || (x.exposureId < y.exposureId ? -1 : 1))
      .at(-1);
  };
  const counted = new Map<string, Action[]>();
  const explained = new Map<Action, Exposure>();
  const orphans: string[] = [];
  for (const [id, action] of actions) {
    const exposure = exposureOf(action);
    if (!exposure) {
      orphans.push(id);
      continue;
    }
    explained.set(action, exposure);
    counted.set(exposure.exposureId, [...(counted.get(exposure.exposureId) ?? []), action]);
  }

  const historyOf = (e: Exposure): TrainingSample['history'] => {
    const latest = <V extends { itemId: string; eventTimeMs: number }>(
      all: V[],
      idOf: (v: V) => string,
    ): TrainingSample['history']['clicks'] =>
      all
        .filter((v) => v.eventTimeMs < e.requestTimeMs)
        .sort((x, y) => y.eventTimeMs - x.eventTimeMs || (idOf(x) < idOf(y) ? 1 : -1))
        .slice(0, options.historyLength)
        .map(({ itemId, eventTimeMs }) => ({
          itemId,
          eventTimeMs,
          category: options.catalogue.item(itemId, e.requestTimeMs)?.category ?? '',
        }));
    const actionsOf = (kind: 'CLICK' | 'BUY'): Action[] =>
      [...actions.values()].filter((a) => {
        const own = a.exposureId === null ? explained.get(a) : exposures.get(a.exposureId);
        return (
          a.kind === kind &&
          a.userId === e.userId &&
          a.exposureId !== e.exposureId &&
          own?.requestId !== e.requestId
        );
      });
    return {
      exposures: latest(
        [...exposures.values()].filter((x) => x.userId === e.userId && x.requestId !== e.requestId),
        (x) => x.exposureId,
      ),
      clicks: latest(actionsOf('CLICK'), (a) => a.actionId),
      buys: latest(actionsOf('BUY'), (a) => a.actionId),
    };
  };

  const samples: ReferenceSample[] = [];
  for (const exposure of exposures.values()) {
    const mine = (counted.get(exposure.exposureId) ?? []).sort(
      (a, b) => a.eventTimeMs - b.eventTimeMs || (a.kind === b.kind ? 0 : a.kind === 'CLICK' ? -1 : 1),
    );
    const item = options.catalogue.item(exposure.itemId, exposure.requestTimeMs);
    const sampleOf = (
      kind: TrainingSample['kind'],
      firstPositive: boolean,
      of: Action[],
    ): ReferenceSample => {
      const click = of.find((a) => a.kind === 'CLICK');
      const buys = of.filter((a) => a.kind === 'BUY');
      const delay = (a: Action | undefined): number | null =>
        a ? Math.max(0, a.eventTimeMs - exposure.eventTimeMs) : null;
      return {
        exposure,
        kind,
        firstPositive,
        clicked: click !== undefined,
        clickDelayMs: delay(click),
        bought: buys.length > 0,
        buyDelayMs: delay(buys[0]),
        buyValueCents: buys.reduce((sum, a) => sum + a.cents, 0),
        buyQuantity: buys.reduce((sum, a) => sum + a.count, 0),
        sid: options.catalogue.sid(exposure.itemId, exposure.requestTimeMs),
        item: item && {
          ...item,
          sellingItemIds: options.catalogue.sellingItemIds(exposure.itemId, exposure.requestTimeMs),
        },
        history: historyOf(exposure),
      };
    };
    // Up to and with an action: equal buys belong together, equal click and buy do not.
    const upTo = (last: Action): Action[] =>
      mine.filter(
        (a) =>
          a.eventTimeMs < last.eventTimeMs ||
          (a.eventTimeMs === last.eventTimeMs && (a.kind === 'CLICK' || last.kind === 'BUY')),
      );
    if (options.emitPositives)
      for (const kind of ['CLICK', 'BUY'] as const) {
        const first = mine.find((a) => a.kind === kind);
        if (first) samples.push(sampleOf(kind, mine[0] === first, upTo(first)));
      }
    samples.push(sampleOf('FINAL', !options.emitPositives && mine.length > 0, mine));
  }
  return { samples, orphans, duplicates };
}
