/**
 * Whether a model may be published: its figures on held-back requests against limits, and against the figures of the
 * model in use on the same requests (model.md: a gate on beam recall, never on the loss alone).
 *
 * gatePolicy({ recall: 0.30 }, { recall: 0.40 }, [{ figure: 'recall', maxFall: 0.05 }]) refuses, naming the fall of 0.10; with
 * fallError 0.08 it passes, for a fall within 1.96 standard errors may be chance.
 */

/** Figures by name, such as beam_recall. */
export type GateFigures = Readonly<Record<string, number>>;

export interface GateLimit {
  figure: string;
  /** At most so far below the published model's. */
  maxFall?: number;
  /** Standard error of the fall, from the differences request by request; absent or 0: the fall is no matter of chance. */
  fallError?: number;
  /** A fall counts from a published figure of so much on: what has hardly been learned yet comes and goes. */
  fallsFrom?: number;
  /** At most so far above the published model's. */
  maxRise?: number;
  /** Bounds that hold whether or not a model is published. */
  least?: number;
  most?: number;
}

/**
 * @param published null where no model is in use: then only `least` and `most` count
 * @returns why the candidate stays unpublished, one reason per broken limit; empty when it may be published
 */
export function gatePolicy(
  candidate: GateFigures,
  published: GateFigures | null,
  limits: readonly GateLimit[],
): string[] {
  return limits.flatMap((limit) => {
    const value = candidate[limit.figure];
    const before = published?.[limit.figure];
    // Not measured on either side, such as a scenario without requests.
    if (value === undefined && before === undefined) return [];
    if (value === undefined || !Number.isFinite(value))
      return [`${limit.figure} is ${value}: it could not be measured`];
    return broken(limit, value, before).map(
      (how) =>
        `${limit.figure} is ${round(value)}${before === undefined ? '' : ` after ${round(before)}`}, ${how}`,
    );
  });
}

function broken(limit: GateLimit, value: number, before?: number): string[] {
  const { maxFall, fallError = 0, fallsFrom = 0, maxRise, least, most } = limit;
  const why: string[] = [];
  if (maxFall !== undefined && before !== undefined && before >= fallsFrom) {
    const fall = before - value;
    if (fall > maxFall && fall > Z_95 * fallError)
      why.push(
        `a fall of more than ${maxFall}${fallError > 0 ? ` and of ${(fall / fallError).toFixed(1)} standard errors` : ''}`,
      );
  }
  if (maxRise !== undefined && before !== undefined && value - before > maxRise)
    why.push(`a rise of more than ${maxRise}`);
  if (least !== undefined && value < least) why.push(`less than ${least}`);
  if (most !== undefined && value > most) why.push(`more than ${most}`);
  return why;
}

/** Two-sided 95 % of a normal distribution. */
const Z_95 = 1.96;

/**
 * Standard error of the difference of two means.
 * @param paired whether entry i of both is of the same request: then what both requests share cancels
 */
export function differenceError(a: readonly number[], b: readonly number[], paired: boolean): number {
  if (paired) return Math.sqrt(varianceOfMean(a.map((x, i) => x - b[i]!)));
  return Math.sqrt(varianceOfMean(a) + varianceOfMean(b));
}

function varianceOfMean(values: readonly number[]): number {
  const n = values.length;
  if (n < 2) return 0;
  const mean = values.reduce((sum, x) => sum + x, 0) / n;
  return values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (n - 1) / n;
}

const round = (value: number): string => String(Number(value.toFixed(4)));
