// Generated from schemas/*.avsc by `npm run generate`. Do not edit.

/** One paid order line. Key: userId. */
export interface Buy {
  actionId: string;
  /** null: last-touch attribution finds the exposure. */
  exposureId: string | null;
  userId: string;
  itemId: string;
  eventTimeMs: number;
  /** Unit price paid, in minor units. */
  priceCents: number;
  quantity: number;
}

/** One click on a shown item. Key: userId. */
export interface Click {
  /** Unique per click; a copy with the same id is a duplicate. */
  actionId: string;
  /** null: last-touch attribution finds the exposure. */
  exposureId: string | null;
  userId: string;
  itemId: string;
  eventTimeMs: number;
}

/** A trained tokenizer. Key: scenario. Compacted. */
export interface Codebook {
  scenario: string;
  codebookVersion: number;
  /** Artifact folder. */
  uri: string;
  sha256: string;
  /** Codes per level. */
  numCodes: number[];
  dim: number;
  metrics: Record<string, number>;
  /** Policy version of the frozen item tower; null while live rooms use the mean of product embeddings. */
  towerVersion: string | null;
  towerUri: string | null;
  /** Nothing that happened later went into it. */
  cutoffMs: number;
  createdMs: number;
  /** Versions below are retired: nobody serves them, and their SIDs are tombstoned. */
  oldestVersion: number;
}

/** A record that no service can use. Key: that of the source. */
export interface DeadLetter {
  service: string;
  /** One of the reasons listed in docs/runbooks/dead-letters.md, such as UNKNOWN_SCHEMA. */
  reason: string;
  /** What was expected, what came. */
  detail: string;
  topic: string;
  partition: number;
  offset: number;
  appendTimeMs: number;
  key: Buffer | null;
  payload: Buffer | null;
  createdMs: number;
}

/** Features logged by the server at request time; they pass through to the sample. */
export interface RequestFeatures {
  ints: number[];
  floats: number[];
}

/** One item shown to one user at one position of one request. Key: userId. */
export interface Exposure {
  /** Unique per shown item: request id and position. */
  exposureId: string;
  userId: string;
  itemId: string;
  /** Checked against the configured scenarios. */
  scenario: string;
  /** When the item was shown, ms since the Unix epoch. */
  eventTimeMs: number;
  requestId: string;
  /** When the page was requested: features hold only what happened before it. */
  requestTimeMs: number;
  /** 0 is the top of the page. */
  position: number;
  /** How long a video or room was watched; null where unknown. */
  watchMs: number | null;
  /** Price shown, in minor units of the currency. */
  priceCents: number;
  requestFeatures: RequestFeatures;
}

/** One version of an item of the catalogue. Key: itemId. Compacted; a tombstone removes the item. */
export interface Item {
  itemId: string;
  scenario: string;
  /** Event time of this version. */
  validFromMs: number;
  title: string;
  category: string;
  tags: string[];
  priceCents: number;
  sellerId: string;
  /** The product card that a short video promotes. */
  productId: string | null;
  /** A short video that entertains and sells nothing. */
  contentVideo: boolean;
  /** Content embedding, if the log has one; all of one scenario have one length. */
  embedding: number[] | null;
}

/** Output of the item tower. Key: itemId. Compacted. */
export interface ItemEmbedding {
  itemId: string;
  scenario: string;
  vector: number[];
  policyVersion: string;
  createdMs: number;
}

/** Semantic ID: three level codes of one codebook version of one scenario. */
export interface Sid {
  scenario: string;
  codebookVersion: number;
  c1: number;
  c2: number;
  c3: number;
}

export type SidReason = 'NEW_ITEM' | 'ITEM_CHANGED' | 'PRODUCT_CHANGE' | 'NEW_CODEBOOK';

/** The semantic ID of a product card or short video. Key: itemId:codebookVersion. Compacted. */
export interface ItemSid {
  itemId: string;
  sid: Sid;
  /** Event time of the cause; 0 for the first SID of an item in a codebook version. */
  validFromMs: number;
  reason: SidReason;
  createdMs: number;
}

export type LateReason = 'LATE' | 'ORPHAN';

/** An input record that came too late or found no exposure. Key: userId. */
export interface LateEvent {
  reason: LateReason;
  topic: string;
  partition: number;
  offset: number;
  userId: string;
  exposureId: string | null;
  actionId: string | null;
  eventTimeMs: number;
  watermarkMs: number;
  /** The original value, wire format included. */
  payload: Buffer;
}

/** The semantic ID of a live room and the products it sells; the state of the live-sid-updater. Key: liveId:codebookVersion. Compacted. */
export interface LiveSid {
  liveId: string;
  /** null until an embedding of a sold product is known. */
  sid: Sid | null;
  validFromMs: number;
  reason: SidReason;
  /** Products on sale, in order of being added. */
  sellingItemIds: string[];
  explainingItemId: string | null;
  /** live-product-changes partition of the newest change taken. */
  sourcePartition: number;
  /** Its offset. */
  sourceOffset: number;
  createdMs: number;
}

/** One point of named values; training-metrics, sid-metrics and retrieval-metrics carry it. */
export interface Metric {
  /** Service and model, such as trainer-retriever. */
  source: string;
  /** Empty where it spans all. */
  scenario: string;
  /** Policy or codebook version; empty where none applies. */
  version: string;
  /** Training step or 0. */
  step: number;
  values: Record<string, number>;
  createdMs: number;
}

export type ModelKind = 'RETRIEVER' | 'RANKER';

/** A published model. Key: model. Compacted. */
export interface PolicyVersion {
  model: ModelKind;
  /** Checkpoint id and sha256. */
  policyVersion: string;
  /** Artifact folder with ONNX files and a manifest. */
  uri: string;
  sha256: string;
  step: number;
  /** By scenario; empty for a ranker. */
  codebookVersions: Record<string, number>;
  metrics: Record<string, number>;
  createdMs: number;
}

export type ProductChangeKind = 'ADDED' | 'REMOVED' | 'EXPLAINING' | 'ROOM_ENDED';

/** A product put on sale, taken off or being explained in a live room, or the end of the room. Key: liveId. */
export interface ProductChange {
  changeId: string;
  liveId: string;
  kind: ProductChangeKind;
  /** null only for ROOM_ENDED. */
  itemId: string | null;
  eventTimeMs: number;
}

/** A candidate with the reward that the ranker gives. */
export interface ScoredCandidate {
  c1: number;
  c2: number;
  c3: number;
  tokenLogProbs: number[];
  itemId: string | null;
  /** Place in the beam, 0 is best. */
  rank: number;
  pCtr: number;
  pCtcvr: number;
  pEgpm: number;
  reward: number;
  /** Group-normalized, clamped. */
  advantage: number;
}

/** One GRPO group: the scored candidates of one request. Key: requestId. */
export interface RewardBatch {
  requestId: string;
  userId: string;
  scenario: string;
  requestTimeMs: number;
  /** The reference policy that made the rollout. */
  policyVersion: string;
  codebookVersion: number;
  rankerVersion: string;
  history: UserHistory;
  candidates: ScoredCandidate[];
  rewardMean: number;
  rewardStd: number;
  rolloutCreatedMs: number;
  createdMs: number;
}

/** One SID that beam search gave. */
export interface Candidate {
  c1: number;
  c2: number;
  c3: number;
  /** Log-probability per level under the policy that made the rollout. */
  tokenLogProbs: number[];
  /** The item that the retriever would serve for the SID; null where none exists. */
  itemId: string | null;
}

/** Candidates of the reference policy for one request. Key: requestId. */
export interface Rollout {
  requestId: string;
  userId: string;
  scenario: string;
  requestTimeMs: number;
  policyVersion: string;
  codebookVersion: number;
  history: UserHistory;
  /** In beam order, best first. */
  candidates: Candidate[];
  createdMs: number;
}

export type SampleKind = 'CLICK' | 'BUY' | 'FINAL';

/** The item as of the request. */
export interface ItemFeatures {
  category: string;
  tags: string[];
  priceCents: number;
  sellerId: string;
  /** Live rooms: the products on sale as of the request. */
  sellingItemIds: string[];
  validFromMs: number;
}

/** One earlier event of the user. */
export interface HistoryEvent {
  itemId: string;
  eventTimeMs: number;
  /** Category of the item as of the request; empty where unknown. */
  category: string;
}

/** What the user did before the request, newest first, at most H of each. */
export interface UserHistory {
  exposures: HistoryEvent[];
  clicks: HistoryEvent[];
  buys: HistoryEvent[];
}

/** What one exposure led to. Key: userId. Exactly one FINAL per exposure, at most one CLICK and one BUY before it. */
export interface TrainingSample {
  exposure: Exposure;
  kind: SampleKind;
  /** True on the one record that is the first positive of its exposure. */
  firstPositive: boolean;
  clicked: boolean;
  clickDelayMs: number | null;
  bought: boolean;
  buyDelayMs: number | null;
  buyValueCents: number;
  buyQuantity: number;
  /** SID of the item as of the request; null where none is known, then it is not trained on. */
  sid: Sid | null;
  item: ItemFeatures | null;
  history: UserHistory;
  /** Event-time watermark of the join when the record left. */
  watermarkMs: number;
}
