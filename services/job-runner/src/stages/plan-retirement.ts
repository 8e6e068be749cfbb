import type { Codebook } from '@onemall/contracts';
import { LIVE_STREAM, PRODUCT_CARD } from '@onemall/quantization';

/** What the policies in use read. */
export interface UsedSince {
  version: number;
  sinceMs: number;
}

export interface Retirement {
  scenario: string;
  /** Versions below are needed by nobody. */
  oldestVersion: number;
  /** Those of them that are not retired yet. */
  retires: number[];
  /** When they may be; null for now. */
  dueMs: number | null;
}

/**
 * Which versions go. A version is needed while the policy in use reads it, is newer than that (a fork may be on its way to
 * it), or the tower of a live codebook that is needed reads its SIDs; and for `waitMs` after the policy went on to another,
 * so that every sample of a page that was served in it has been assembled and trained.
 */
export function planRetirement(input: {
  /** Newest codebook record of each scenario. */
  newest: readonly Codebook[];
  used: ReadonlyMap<string, UsedSince>;
  /** Lowest version of product cards that a needed tower reads. */
  readByTower: number | null;
  waitMs: number;
  nowMs: number;
}): Retirement[] {
  const { newest, used, readByTower, waitMs, nowMs } = input;
  return newest.map(({ scenario, oldestVersion: before }) => {
    const inUse = used.get(scenario);
    // Towers of live codebooks before the switch go with it, and their products' versions only then.
    const towersUntilMs = scenario === PRODUCT_CARD ? (used.get(LIVE_STREAM)?.sinceMs ?? 0) : 0;
    const tower = scenario === PRODUCT_CARD ? readByTower : null;
    const oldestVersion = Math.max(
      before,
      Math.min(inUse?.version ?? before, tower ?? Number.POSITIVE_INFINITY),
    );
    const retires = Array.from({ length: oldestVersion - before }, (_, i) => before + i);
    const atMs = Math.max(inUse?.sinceMs ?? 0, towersUntilMs) + waitMs;
    return { scenario, oldestVersion, retires, dueMs: retires.length > 0 && nowMs < atMs ? atMs : null };
  });
}
