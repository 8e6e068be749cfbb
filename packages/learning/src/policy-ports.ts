/**
 * What a published model offers to those who serve or score with it. `loadPolicy` and `loadRanker` (published.ts) give
 * these from the files of an artifact; any runtime that reads ONNX can do the same from the manifest.
 */
import type { ItemTensors, RequestTensors } from '@onemall/features';

export type { ItemTensors, RequestTensors } from '@onemall/features';

/** Goes up when the inputs or outputs of the published graphs change. */
export const POLICY_FORMAT = 2;
export const RANKER_FORMAT = 1;

/**
 * What the softmax of a policy runs over. codes: all codes of a level; trie: the children of the node in the trie of what exists;
 * popular: the same, each weighed by 1 + the popularity of what lies below it.
 */
export const POLICY_NORMALIZERS = ['codes', 'trie', 'popular'] as const;
export type PolicyNormalizer = (typeof POLICY_NORMALIZERS)[number];

/** policy.json of a published retriever. */
export interface PolicyManifest {
  model: 'RETRIEVER';
  /** POLICY_FORMAT of the code that wrote it. */
  format: number;
  policyVersion: string;
  step: number;
  preset: string;
  /** D. */
  dim: number;
  /** 3 M rows of a user context. */
  contextRows: number;
  /** Scenario names in the order of their embedding. */
  scenarios: string[];
  codebookVersions: Record<string, number>;
  /** Codes per level by scenario. */
  numCodes: Record<string, [number, number, number]>;
  /** Values per token that a decode graph gives and the next one takes: keys and values of all layers. */
  cacheWidth: number;
  /** History events per behaviour that the context graph takes. */
  historyLength: number;
  /** Beam widths with a decode graph of that static size, ascending; a smaller beam is padded up. */
  beamWidths: number[];
  /** Items that the item tower takes at once. */
  itemTowerRows: number;
  /** What log-probabilities of a level sum to one over; 'codes' where absent. */
  normalizer?: PolicyNormalizer;
  /** The SIDs that masked the softmax of the training; absent where it ran over all codes. */
  trieVersion?: string;
  /** ONNX files by role. */
  files: Record<string, string>;
}

/** F = [F_exposure; F_click; F_buy] of one request: float32 [3M, D]. */
export interface UserContext {
  scenario: string;
  data: Float32Array;
}

/** Some codes for each row of a beam: those of row i are codes[from[i] .. to[i]). */
export interface AskedCodes {
  codes: Int32Array;
  /** int32 [rows] each. */
  from: Int32Array;
  to: Int32Array;
}

/** One beam search, level by level: what was computed for a prefix is kept for those that go on from it. */
export interface Decoding {
  /** log p(s1) of every first code. */
  first(): Promise<Float32Array>;
  /**
   * log p of the next code of n = codes.length prefixes, over all codes of the level.
   * @param level 1: codes are first codes; 2: second codes, each of the row `parents[i]` of the call for level 1
   * @param asked which of the next codes, for each of the n rows
   * @returns float32, the asked codes of row 0, then those of row 1 and so on
   */
  next(level: 1 | 2, codes: Int32Array, parents: Int32Array, asked: AskedCodes): Promise<Float32Array>;
  /** The user's side of the dense head, of length 1, after `first`; null for a model without one. */
  readonly user: Float32Array | null;
  /** The memory may be used by another decoding from now on. */
  release(): void;
}

export interface PolicyRuntime {
  readonly manifest: PolicyManifest;
  encode(request: RequestTensors): Promise<UserContext>;
  begin(context: UserContext): Decoding;
  /**
   * log p(code | prefix, context) over all codes of the next level, without a memory of earlier calls.
   * @param prefixes int32 [N, level] codes chosen so far, level 0, 1 or 2
   * @returns float32 [N, K_level], each row a log-softmax over all codes
   */
  decode(context: UserContext, level: 0 | 1 | 2, prefixes: Int32Array, n: number): Promise<Float32Array>;
  close(): Promise<void>;
}

/** The item tower of a published retriever: f_item (paper, equation 4), for dense retrieval and for codebooks of live rooms. */
export interface ItemTowerRuntime {
  readonly manifest: PolicyManifest;
  readonly dim: number;
  /** @returns float32 [items, dim], each row of length 1 */
  embed(items: readonly ItemTensors[]): Promise<Float32Array>;
  close(): Promise<void>;
}

/** ranker.json of a published ranker. */
export interface RankerManifest {
  model: 'RANKER';
  /** RANKER_FORMAT of the code that wrote it. */
  format: number;
  rankerVersion: string;
  step: number;
  scenarios: string[];
  /** Changes whenever rankerFeatures gives other numbers; loading another version is refused. */
  featureVersion: number;
  numDense: number;
  numIds: number;
  /** Candidates that the graph takes at once. */
  batchRows: number;
  /** The same of a second graph, role `ranker-wide`, for many candidates: fewer runs of the same cost each around the graph. */
  wideRows?: number;
  /** S of pEgpm = pCtcvr x E[value | buy] / S, by scenario (model.md, RL). */
  egpmScale: Record<string, number>;
  /** AUC, calibration, by scenario. */
  metrics: Record<string, number>;
  files: Record<string, string>;
}
export interface RankerScores {
  /** P(click), P(click and buy within the window), expected paid value in minor units given a buy; float32 [N] each. */
  pCtr: Float32Array;
  pCtcvr: Float32Array;
  buyValueCents: Float32Array;
}
export interface RankerRuntime {
  readonly manifest: RankerManifest;
  /** @param dense float32 [N, numDense] @param ids int32 [N, numIds] hashed categorical features */
  score(dense: Float32Array, ids: Int32Array, n: number): Promise<RankerScores>;
  close(): Promise<void>;
}
