/**
 * The state of a retrieval trainer carried over to new codebooks (model.md, Codebook change). The backbone and the rows of
 * codes that the match keeps go over with their Adam moments; a code without a forerunner begins with fresh weights and zero
 * moments, so that moments of what it meant before do not push it.
 */
import { type SidLayout, sidLayout } from '@onemall/features';
import { StateError, type TrainerState } from './trainer-ports.ts';

/** By scenario and level: match[new code] is the old code that it continues, or -1. */
export type CodeMatch = Readonly<Record<string, readonly [Int32Array, Int32Array, Int32Array]>>;

const LEVELS = [0, 1, 2] as const;

/**
 * @param old of the trainer that goes on meanwhile
 * @param fresh of a new trainer on the new codebooks: the shapes, and the weights of unmatched codes
 * @throws StateError when the match does not fit the two layouts, or the two models differ in more than their codes
 */
export function forkState(old: TrainerState, fresh: TrainerState, match: CodeMatch): TrainerState {
  const [before, after] = [layoutOf(old), layoutOf(fresh)];
  checkMatch(match, before, after);
  const tensors = new Map<string, Float32Array>();
  for (const [name, own] of fresh.tensors) {
    const from = old.tensors.get(name);
    const codes = codeTensor(name);
    if (codes === null) {
      if (from?.length !== own.length)
        throw new StateError(
          `The state to fork from has ${from ? `${from.length} values` : 'nothing'} for ${name}, the new model ${own.length}: only codebooks may differ`,
        );
      tensors.set(name, from.slice());
      continue;
    }
    if (!from) throw new StateError(`The state to fork from has nothing for ${name}`);
    const { level, lines, moment } = codes;
    const rows = rowMatch(match, before, after, level);
    const carried = moment ? new Float32Array(own.length) : own.slice();
    const [wide, width] = [before.rows[level], after.rows[level]];
    const dim = own.length / width;
    if (from.length !== wide * dim)
      throw new StateError(`${name} has ${from.length} values, expected ${wide} codes of ${dim}`);
    for (const [to, source] of rows.entries()) {
      if (source < 0) continue;
      if (lines === 'rows') carried.set(from.subarray(source * dim, (source + 1) * dim), to * dim);
      else for (let d = 0; d < dim; d++) carried[d * width + to] = from[d * wide + source]!;
    }
    tensors.set(name, carried);
  }
  return { tensors, scalars: { ...fresh.scalars, step: old.scalars.step! } };
}

/** Share of codes that continue an old one, by scenario and level: reported and limited at the switch. */
export function matchedShares(match: CodeMatch): Record<string, [number, number, number]> {
  return Object.fromEntries(
    Object.entries(match).map(([scenario, levels]) => [
      scenario,
      levels.map((codes) => codes.filter((code) => code >= 0).length / codes.length) as [
        number,
        number,
        number,
      ],
    ]),
  );
}

/** Tables hold a code per row, heads a code per column; moments are named m. and v. (training-engine.ts). */
function codeTensor(name: string): { level: 0 | 1 | 2; lines: 'rows' | 'columns'; moment: boolean } | null {
  const match = /^([mv]\.)?(sid|head)\.level([123])$/.exec(name);
  if (!match) return null;
  return {
    level: (Number(match[3]) - 1) as 0 | 1 | 2,
    lines: match[2] === 'sid' ? 'rows' : 'columns',
    moment: match[1] !== undefined,
  };
}

/** Per row of the new table the row of the old one, or -1. */
function rowMatch(match: CodeMatch, before: SidLayout, after: SidLayout, level: 0 | 1 | 2): Int32Array {
  const rows = new Int32Array(after.rows[level]).fill(-1);
  for (const scenario of after.scenarios) {
    const [from, to] = [before.offsets.get(scenario)![level], after.offsets.get(scenario)![level]];
    for (const [code, old] of match[scenario]![level].entries()) if (old >= 0) rows[to + code] = from + old;
  }
  return rows;
}

function checkMatch(match: CodeMatch, before: SidLayout, after: SidLayout): void {
  if (before.scenarios.join() !== after.scenarios.join())
    throw new StateError(
      `A fork keeps the scenarios: ${before.scenarios.join(', ')} before, ${after.scenarios.join(', ')} after`,
    );
  for (const scenario of after.scenarios)
    for (const level of LEVELS) {
      const [had, has] = [before.numCodes[scenario]![level], after.numCodes[scenario]![level]];
      const codes = match[scenario]?.[level];
      if (codes?.length !== has)
        throw new StateError(
          `The match of ${scenario}, level ${level + 1}, has ${codes?.length ?? 'no'} codes, the new codebook ${has}`,
        );
      const taken = new Set<number>();
      for (const [code, old] of codes.entries()) {
        if (old === -1) continue;
        if (!(Number.isInteger(old) && old >= 0 && old < had))
          throw new StateError(
            `The match of ${scenario}, level ${level + 1}, gives code ${code} the old code ${old}, outside 0..${had - 1}`,
          );
        if (taken.has(old))
          throw new StateError(
            `The match of ${scenario}, level ${level + 1}, gives the old code ${old} twice`,
          );
        taken.add(old);
      }
    }
}

/** What `shapeScalars` of the trainer wrote. */
function layoutOf({ scalars }: TrainerState): SidLayout {
  const scenarios = Object.entries(scalars)
    .filter(([name]) => name.startsWith('scenario.'))
    .sort(([, a], [, b]) => a - b)
    .map(([name]) => name.slice('scenario.'.length));
  if (scenarios.length === 0)
    throw new StateError('The state names no scenarios: it is none of a retrieval trainer');
  const numCodes = Object.fromEntries(
    scenarios.map((scenario) => [
      scenario,
      LEVELS.map((level) => scalars[`numCodes.${scenario}.${level + 1}`]!) as [number, number, number],
    ]),
  );
  return sidLayout(scenarios, numCodes);
}
