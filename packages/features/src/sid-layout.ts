import type { NumCodes, SidCodes } from './tensors.ts';

/** Where each scenario's codes lie in the per-level embedding tables and output heads. */
export interface SidLayout {
  scenarios: readonly string[];
  numCodes: NumCodes;
  /** First row by scenario and level. */
  offsets: ReadonlyMap<string, readonly [number, number, number]>;
  /** Rows of each level's table: the sum over the scenarios. */
  rows: readonly [number, number, number];
}

/** @throws Error when a scenario has no numCodes or a count below 1, or when there is no scenario. */
export function sidLayout(scenarios: readonly string[], numCodes: NumCodes): SidLayout {
  if (scenarios.length === 0) throw new Error('A SID layout needs at least one scenario, got none');
  const rows: [number, number, number] = [0, 0, 0];
  const offsets = new Map<string, readonly [number, number, number]>();
  for (const scenario of scenarios) {
    const counts = numCodes[scenario];
    if (!counts?.every((n) => Number.isInteger(n) && n >= 1))
      throw new Error(
        `numCodes of scenario ${scenario} must be three whole numbers of at least 1, got ${JSON.stringify(counts)}`,
      );
    if (offsets.has(scenario)) throw new Error(`Scenario ${scenario} is listed twice`);
    offsets.set(scenario, [...rows]);
    for (const level of LEVELS) rows[level] += counts[level];
  }
  return { scenarios, numCodes, offsets, rows };
}

/** Writes the three embedding rows of a SID. @throws Error when the scenario or a code is outside the layout. */
export function writeSidRows(layout: SidLayout, sid: SidCodes, out: Int32Array, at: number): void {
  const offsets = layout.offsets.get(sid.scenario);
  const counts = layout.numCodes[sid.scenario];
  if (!offsets || !counts)
    throw new Error(`SID of unknown scenario ${sid.scenario}; known: ${layout.scenarios.join(', ')}`);
  const codes = [sid.c1, sid.c2, sid.c3] as const;
  for (const level of LEVELS) {
    const code = codes[level];
    if (!(Number.isInteger(code) && code >= 0 && code < counts[level]))
      throw new Error(
        `Code ${code} of level ${level + 1} in ${sid.scenario} is outside 0..${counts[level] - 1}`,
      );
    out[at + level] = offsets[level] + code;
  }
}

const LEVELS = [0, 1, 2] as const;
