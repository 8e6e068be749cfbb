/** Attribution windows: which action belongs to which exposure, and until when each of them matters. */
export type ActionKind = 'CLICK' | 'BUY';

export interface ScenarioWindows {
  /** A click counts up to this long after its exposure. */
  clickWindowMs: number;
  buyWindowMs: number;
}

export interface AttributionRules {
  scenarios: Readonly<Record<string, ScenarioWindows>>;
  /** Added to the larger window before an exposure closes. */
  graceMs: number;
  /** An action may seem to come this long before its exposure, by skew between producers. */
  outOfOrdernessMs: number;
}

export class AttributionWindows {
  readonly rules: AttributionRules;
  readonly largestWindowMs: number;
  /** The longest time from an exposure's event time to its closing. */
  readonly longestOpenMs: number;
  /**
   * How long after its event time a record must stay known, so that a replay decides about every other record as it
   * was decided first. Two windows: an action may come a window after its exposure, and is itself undecided for one more.
   */
  readonly knownSpanMs: number;

  constructor(rules: AttributionRules) {
    this.rules = rules;
    const windows = Object.values(rules.scenarios).flatMap((s) => [s.clickWindowMs, s.buyWindowMs]);
    if (windows.length === 0)
      throw new Error('Attribution needs at least one scenario with its windows, got none');
    this.largestWindowMs = Math.max(...windows);
    this.longestOpenMs = this.largestWindowMs + rules.graceMs;
    this.knownSpanMs = 2 * this.largestWindowMs + rules.graceMs + rules.outOfOrdernessMs;
  }

  get scenarioNames(): string[] {
    return Object.keys(this.rules.scenarios);
  }

  knows(scenario: string): boolean {
    return Object.hasOwn(this.rules.scenarios, scenario);
  }

  /** The watermark at which the exposure's FINAL sample leaves. */
  closesAtMs(scenario: string, exposureTimeMs: number): number {
    const { clickWindowMs, buyWindowMs } = this.#scenario(scenario);
    return exposureTimeMs + Math.max(clickWindowMs, buyWindowMs) + this.rules.graceMs;
  }

  /** The watermark at which an action that found no exposure is an orphan: every exposure it could join has closed. */
  actionEndsAtMs(actionTimeMs: number): number {
    return actionTimeMs + this.rules.outOfOrdernessMs + this.longestOpenMs;
  }

  /** Whether the action lies in [exposure - outOfOrdernessMs, exposure + window]. */
  contains(scenario: string, exposureTimeMs: number, kind: ActionKind, actionTimeMs: number): boolean {
    const { clickWindowMs, buyWindowMs } = this.#scenario(scenario);
    const delayMs = actionTimeMs - exposureTimeMs;
    return (
      delayMs >= -this.rules.outOfOrdernessMs && delayMs <= (kind === 'CLICK' ? clickWindowMs : buyWindowMs)
    );
  }

  #scenario(scenario: string): ScenarioWindows {
    const windows = this.rules.scenarios[scenario];
    if (!windows)
      throw new Error(
        `No attribution windows for scenario ${scenario}: known are ${Object.keys(this.rules.scenarios).join(', ')}`,
      );
    return windows;
  }
}

export interface TouchCandidate {
  exposureId: string;
  scenario: string;
  timeMs: number;
}

/**
 * Last touch, for an action that names no exposure: the latest of the user's exposures of the item that does not come
 * after the action and has it in its window. Equal times are settled by the greater id.
 */
export function lastTouch<E extends TouchCandidate>(
  windows: AttributionWindows,
  candidates: Iterable<E>,
  kind: ActionKind,
  actionTimeMs: number,
): E | undefined {
  let best: E | undefined;
  for (const candidate of candidates) {
    if (candidate.timeMs > actionTimeMs) continue;
    if (!windows.contains(candidate.scenario, candidate.timeMs, kind, actionTimeMs)) continue;
    if (
      !best ||
      candidate.timeMs > best.timeMs ||
      (candidate.timeMs === best.timeMs && candidate.exposureId > best.exposureId)
    )
      best = candidate;
  }
  return best;
}
