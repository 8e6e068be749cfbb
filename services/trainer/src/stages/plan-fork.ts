/** When a fork of the retriever begins, and where (model.md, Codebook change). */
import type { Codebook, PolicyVersion } from '@onemall/contracts';
import { type Codebooks, codebooksOf } from '../learner.ts';
import type { Progress } from './checkpoint-format.ts';
import { freshLossGuard } from './guard-loss.ts';

export type ForkPlan = { kind: 'wait'; why: string } | { kind: 'fork'; inUse: PolicyVersion; to: Codebooks };

/**
 * @param newest codebook records by scenario
 * @param missingSids items and rooms that have a SID in the versions in use and none in the newest ones
 */
export function planFork(
  scenarios: readonly string[],
  inUse: PolicyVersion | null,
  newest: ReadonlyMap<string, Codebook>,
  missingSids: (to: Codebooks['codebookVersions'], from: Codebooks['codebookVersions']) => number,
  { nowMs, quietMs }: { nowMs: number; quietMs: number },
): ForkPlan {
  const wait = (why: string): ForkPlan => ({ kind: 'wait', why });
  if (!inUse) return wait('no policy is published yet');
  const chosen = scenarios.map((scenario) => newest.get(scenario)).filter((c) => c !== undefined);
  if (chosen.length < scenarios.length) return wait('not every scenario has a codebook');
  const newer = chosen.filter((c) => c.codebookVersion > (inUse.codebookVersions[c.scenario] ?? 0));
  if (newer.length === 0) return wait('no codebook is newer than those of the policy in use');
  if (newer.some((c) => nowMs - c.createdMs < quietMs)) return wait('codebooks are still coming');
  const to = codebooksOf(chosen);
  const missing = missingSids(to.codebookVersions, inUse.codebookVersions);
  if (missing > 0) return wait(`${missing} items have no SID in the newer codebooks yet`);
  return { kind: 'fork', inUse, to };
}

/**
 * Where a fork begins: step and sample count go on from those of the trainer that it leaves, the log is read again from
 * `tailSamples` records before its offsets, and its reward groups belong to another codebook.
 */
export function forkProgress(of: Progress, tailSamples: number): Progress {
  const tail = Math.ceil(tailSamples / Math.max(1, of.positions.length));
  return {
    step: of.step,
    samples: of.samples,
    positions: of.positions.map(([partition, offset]) => [partition, Math.max(0, offset - tail)]),
    cursor: 0,
    rewardPositions: of.rewardPositions,
    usedRequestIds: of.usedRequestIds,
    tableOffsets: {},
    guard: freshLossGuard,
    lossFirst: of.lossFirst,
  };
}
