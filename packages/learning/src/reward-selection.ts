/** Which candidates of a scored group train the retriever (model.md, RL). */

/** A source of whole numbers in [0, n), such as service-kit's SeededRandom. */
export interface IntSource {
  int(n: number): number;
}

/**
 * m of a group for GRPO: half from the top of the beam, half from the rest; where one side is short the other fills up.
 * @param candidates in beam order, best first @param top how many of them count as the top, 50 in model.md
 * @returns min(m, candidates) of them, in beam order
 */
export function selectGrpoCandidates<C>(candidates: readonly C[], random: IntSource, m = 16, top = 50): C[] {
  const indices = candidates.map((_, i) => i);
  const [high, low] = [indices.slice(0, top), indices.slice(top)];
  const wanted = Math.min(m, candidates.length);
  const fromLow = Math.min(low.length, Math.floor(wanted / 2));
  const fromHigh = Math.min(high.length, wanted - fromLow);
  const chosen = [...draw(high, fromHigh, random), ...draw(low, wanted - fromHigh, random)];
  return chosen.sort((a, b) => a - b).map((i) => candidates[i]!);
}

/** The candidates whose advantage is less than the median of all; empty where more than half share the least. */
export function belowMedian<C extends { advantage: number }>(candidates: readonly C[]): C[] {
  const sorted = candidates.map((c) => c.advantage).sort((a, b) => a - b);
  const half = sorted.length / 2;
  const median = (sorted[Math.ceil(half) - 1]! + sorted[Math.floor(half)]!) / 2;
  return candidates.filter((c) => c.advantage < median);
}

/**
 * o+ (the greatest advantage) first, then up to `negatives` drawn from the candidates below the median advantage.
 * @returns empty when nothing lies below the median
 */
export function selectDpoCandidates<C extends { advantage: number }>(
  candidates: readonly C[],
  random: IntSource,
  negatives = 4,
): C[] {
  const below = belowMedian(candidates);
  if (below.length === 0) return [];
  const best = candidates.reduce((a, b) => (b.advantage > a.advantage ? b : a));
  return [best, ...draw(below, Math.min(negatives, below.length), random)];
}

/** n of a list without replacement (Fisher and Yates). */
function draw<T>(from: readonly T[], n: number, random: IntSource): T[] {
  const pool = [...from];
  for (let i = 0; i < n; i++) {
    const j = i + random.int(pool.length - i);
    [pool[i], pool[j]] = [pool[j]!, pool[i]!];
  }
  return pool.slice(0, n);
}
