/** The latest predictions with their labels, for figures of quality: how well they order, and whether they sum up. */
import type { Prediction } from './fuse-reward.ts';
import { rankCorrelation } from './rank-correlation.ts';

const SAVED_VALUES = 7;
const KINDS = ['Click', 'Buy'] as const;

interface Row {
  click: number;
  buy: number;
  clicked: boolean;
  bought: boolean;
  buyValueCents: number;
  /** Paid in minor units, 0 where not bought. */
  paidCents: number;
  /** Equal for the exposures of one request: a whole number below 2^24, which float32 holds; null where it is not known. */
  request: number | null;
}

/** How far predictions order what a request shows as its outcomes do. */
export interface RequestOrder {
  /** Mean of Spearman's rank correlation over requests. */
  mean: number;
  /** Standard error of that mean. */
  error: number;
  /** Those in which predictions and outcomes differ. */
  requests: number;
}

export class PredictionWindow {
  readonly #capacity: number;
  readonly #rows = new Map<string, { rows: Row[]; next: number }>();

  /** @param capacity rows kept per scenario */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  add(scenario: string, row: Row): void {
    let window = this.#rows.get(scenario);
    if (!window) {
      window = { rows: [], next: 0 };
      this.#rows.set(scenario, window);
    }
    window.rows[window.next] = row;
    window.next = (window.next + 1) % this.#capacity;
  }

  /**
   * The rows, oldest first, so that a resumed trainer goes on with its figures: by `<scenario>`, seven values a row (click,
   * buy, value in cents, clicked, bought, paid, request or -1).
   */
  saved(): Map<string, Float32Array> {
    return new Map(
      [...this.#rows].map(([scenario, { rows, next }]) => {
        const oldestFirst = [...rows.slice(next), ...rows.slice(0, next)];
        return [
          scenario,
          Float32Array.from(
            oldestFirst.flatMap((r) => [
              r.click,
              r.buy,
              r.buyValueCents,
              Number(r.clicked),
              Number(r.bought),
              r.paidCents,
              r.request ?? -1,
            ]),
          ),
        ];
      }),
    );
  }

  /** Takes the place of what is there. @param saved of a window with any capacity: the newest rows that fit are kept */
  restore(saved: ReadonlyMap<string, Float32Array>): void {
    this.#rows.clear();
    for (const [scenario, values] of saved)
      for (let at = 0; at + SAVED_VALUES <= values.length; at += SAVED_VALUES)
        this.add(scenario, {
          click: values[at]!,
          buy: values[at + 1]!,
          buyValueCents: values[at + 2]!,
          clicked: values[at + 3] === 1,
          bought: values[at + 4] === 1,
          paidCents: values[at + 5]!,
          request: values[at + 6]! < 0 ? null : values[at + 6]!,
        });
  }

  /** AUC and calibration by scenario; see `RankerTrainer.metrics`. */
  metrics(): Record<string, number> {
    const out: Record<string, number> = {};
    for (const [scenario, { rows }] of this.#rows) {
      out[`${scenario}.samples`] = rows.length;
      for (const kind of KINDS) {
        const predicted = rows.map((r) => (kind === 'Click' ? r.click : r.buy));
        const labels = rows.map((r) => (kind === 'Click' ? r.clicked : r.bought));
        const positives = labels.filter(Boolean).length;
        if (positives > 0) out[`${scenario}.calibration${kind}`] = sum(predicted) / positives;
        if (positives > 0 && positives < labels.length)
          out[`${scenario}.auc${kind}`] = auc(predicted, labels);
      }
      const paid = sum(rows.map((r) => r.paidCents));
      if (paid === 0) continue;
      const bought = rows.filter((r) => r.bought);
      out[`${scenario}.calibrationValue`] = sum(bought.map((r) => r.buyValueCents)) / paid;
      out[`${scenario}.calibrationEgpm`] = sum(rows.map((r) => r.buy * r.buyValueCents)) / paid;
    }
    return out;
  }

  /**
   * Within each request of a scenario: does the reward order the exposures as what came of them does? AUC over all traffic
   * counts users who click more than others, too; the advantages of a group come from the order within a request alone.
   * @param rewardOf of a prediction, and of an outcome as the prediction that is sure of it
   */
  requestOrder(scenario: string, rewardOf: (prediction: Prediction) => number): RequestOrder | null {
    const byRequest = new Map<number, { predicted: number[]; came: number[] }>();
    for (const r of this.#rows.get(scenario)?.rows ?? []) {
      if (r.request === null) continue;
      let own = byRequest.get(r.request);
      if (!own) {
        own = { predicted: [], came: [] };
        byRequest.set(r.request, own);
      }
      own.predicted.push(rewardOf({ pCtr: r.click, pCtcvr: r.buy, buyValueCents: r.buyValueCents }));
      const [pCtr, pCtcvr] = [Number(r.clicked), Number(r.bought)];
      own.came.push(rewardOf({ pCtr, pCtcvr, buyValueCents: r.paidCents }));
    }
    const correlations = [...byRequest.values()].flatMap(
      ({ predicted, came }) => rankCorrelation(predicted, came) ?? [],
    );
    const requests = correlations.length;
    if (requests < 2) return null;
    const mean = sum(correlations) / requests;
    const variance = sum(correlations.map((c) => (c - mean) ** 2)) / (requests - 1);
    return { mean, error: Math.sqrt(variance / requests), requests };
  }

  /**
   * An estimate of S by scenario: such that the mean of pCtcvr x value / S is 1.25 times the mean pCtr over the tenth of the
   * rows with the highest pCtr + 30 pCtcvr (model.md, RL).
   */
  egpmScale(): Record<string, number> {
    const out: Record<string, number> = {};
    for (const [scenario, { rows }] of this.#rows) {
      const top = rows
        .toSorted((a, b) => b.click + 30 * b.buy - (a.click + 30 * a.buy))
        .slice(0, Math.max(1, Math.ceil(rows.length / 10)));
      const revenue = sum(top.map((r) => r.buy * r.buyValueCents));
      const clicks = sum(top.map((r) => r.click));
      if (revenue > 0 && clicks > 0) out[scenario] = revenue / (1.25 * clicks);
    }
    return out;
  }
}

/** Probability that a positive has a higher prediction than a negative; ties count half (Mann and Whitney). */
export function auc(predictions: readonly number[], labels: readonly boolean[]): number {
  const order = predictions.map((_, i) => i).sort((a, b) => predictions[a]! - predictions[b]!);
  const positives = labels.filter(Boolean).length;
  const negatives = labels.length - positives;
  let rankSum = 0;
  for (let i = 0; i < order.length; ) {
    let j = i;
    while (j < order.length && predictions[order[j]!] === predictions[order[i]!]) j++;
    const middleRank = (i + 1 + j) / 2;
    for (; i < j; i++) if (labels[order[i]!]) rankSum += middleRank;
  }
  return (rankSum - (positives * (positives + 1)) / 2) / (positives * negatives);
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
