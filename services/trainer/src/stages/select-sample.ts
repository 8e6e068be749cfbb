/** Which samples a model trains on, and for which reason the others are left out (model.md, What trains what). */
import type { StreamedSample } from '@onemall/contracts';
import { hashFraction, isHeldBack } from '@onemall/service-kit';

export type LeftOut =
  | 'not_first_positive'
  | 'not_final'
  | 'no_sid'
  | 'other_scenario'
  | 'sid_out_of_range'
  | 'sampled_out'
  | 'held_back';

/** Thins out what the trainer cannot keep up with; the same samples for the same seed. */
export interface SamplingRules {
  /** Share of requests kept for evaluation, by hash of requestId. */
  heldBackFraction: number;
  /** Of the rest, the share that trains, by hash of exposureId. */
  trainShare: number;
  seed: number;
}

function sampling({ exposure }: StreamedSample, rules: SamplingRules): LeftOut | null {
  // Held back first of the two: what is left out for this reason alone is what models are measured on.
  if (isHeldBack(exposure.requestId, rules.heldBackFraction)) return 'held_back';
  const kept =
    rules.trainShare >= 1 || hashFraction(`train:${rules.seed}:${exposure.exposureId}`) < rules.trainShare;
  return kept ? null : 'sampled_out';
}

export interface RetrieverRules extends SamplingRules {
  /** The version this trainer's weights belong to, by scenario. */
  codebookVersions: Readonly<Record<string, number>>;
  /** Codes per level by scenario. */
  numCodes: Readonly<Record<string, readonly [number, number, number]>>;
}

/**
 * null if the retriever trains on it: the first positive record of an exposure whose item has a SID. A SID of another codebook
 * version is looked up in the trainer's own one when the batch is made.
 */
export function retrieverLeavesOut(sample: StreamedSample, rules: RetrieverRules): LeftOut | null {
  if (!sample.firstPositive) return 'not_first_positive';
  const { sid } = sample;
  if (!sid) return 'no_sid';
  const { scenario } = sample.exposure;
  if (sid.scenario !== scenario) return 'other_scenario';
  const k = rules.numCodes[scenario]!;
  const own = sid.codebookVersion === rules.codebookVersions[scenario];
  if (own && !(sid.c1 < k[0] && sid.c2 < k[1] && sid.c3 < k[2])) return 'sid_out_of_range';
  return sampling(sample, rules);
}

/** null if the ranker trains on it: the one FINAL record of an exposure, clicked or not. */
export function rankerLeavesOut(sample: StreamedSample, rules: SamplingRules): LeftOut | null {
  if (sample.kind !== 'FINAL') return 'not_final';
  return sampling(sample, rules);
}
