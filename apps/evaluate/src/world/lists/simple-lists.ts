/** Lists that need no model: what was most viewed, and what the oracle knows. */
import type { ScenarioName } from '@onemall/simulator/world';
import { candidatesOf, type Popularity } from '../log/popularity.ts';
import type { WorldLog } from '../log/world-log.ts';

/** The k most popular candidates of now, most popular first. */
export function popularList(
  log: WorldLog,
  popularity: Popularity,
  scenario: ScenarioName,
  k: number,
): Int32Array {
  const candidates = candidatesOf(log, scenario);
  const scores = Float64Array.from(candidates, (item) => popularity.of(item));
  return topOf(scores, k).map((c) => candidates[c]!);
}

/** Indices of the k greatest scores, greatest first, equal ones by index. */
export function topOf(scores: ArrayLike<number>, k: number): Int32Array {
  const least = k < scores.length ? kthGreatest(Float64Array.from(scores), k) : Number.NEGATIVE_INFINITY;
  const kept: number[] = [];
  for (let i = 0; i < scores.length; i++) if (scores[i]! >= least) kept.push(i);
  return Int32Array.from(kept.sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, k));
}

/** Quickselect (Hoare); reorders the values. @param k from 1 to the number of values */
function kthGreatest(values: Float64Array, k: number): number {
  let low = 0;
  let high = values.length - 1;
  const wanted = k - 1;
  while (low < high) {
    const pivot = values[(low + high) >> 1]!;
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i]! > pivot) i++;
      while (values[j]! < pivot) j--;
      if (i > j) break;
      const swap = values[i]!;
      values[i++] = values[j]!;
      values[j--] = swap;
    }
    if (wanted <= j) high = j;
    else if (wanted >= i) low = i;
    else break;
  }
  return values[wanted]!;
}

/**
 * What nobody can beat but by luck: the order by the exact chance that the logging policy shows an item, and for clicked items by
 * that chance times the exact pCtr.
 */
export function oracleLists(
  log: WorldLog,
  request: number,
  k: number,
): { viewed: Int32Array; clicked: Int32Array } {
  const scenario = log.scenario(request);
  const userId = `u${log.requests.user.at(request)}`;
  const candidates = candidatesOf(log, scenario);
  const chances = log.oracle.viewChances(userId, scenario);
  const { pCtr } = log.oracle.truths(userId, log.newestWant, scenario);
  const clicks = chances.map((chance, c) => chance * pCtr[c]!);
  const itemsOf = (scores: Float64Array): Int32Array => topOf(scores, k).map((c) => candidates[c]!);
  return { viewed: itemsOf(chances), clicked: itemsOf(clicks) };
}
