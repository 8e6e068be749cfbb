/**
 * The numbers that models read, as plain typed arrays. They are made here, once, and used by trainer, retriever and
 * scorer alike.
 *
 * SID codes enter the models as global embedding rows: per level one table holds the rows of all scenarios one after the
 * other, row = rowOffset(scenario, level) + code. -1 stands for "nothing here".
 */

/** Names of the behaviours in the order in which the models stack them. */
export const BEHAVIOURS = ['exposure', 'click', 'buy'] as const;
export type Behaviour = (typeof BEHAVIOURS)[number];

/** log2 buckets of the age of an event: 0 is under a second, 31 is over 34 years. */
export const NUM_AGE_BUCKETS = 32;
/** Hashed item features: category, seller, price bucket, then the tags. */
export const MAX_TAGS = 4;
export const NUM_ITEM_HASHES = 3 + MAX_TAGS;
/** SIDs in an item's features: its own (none for a live room), then products on sale. */
export const MAX_SELLING = 4;
export const NUM_ITEM_SIDS = 1 + MAX_SELLING;

/** History of one behaviour, newest first, padded to the history length H. */
export interface BehaviourTensors {
  /** int32 [H, 3] global embedding rows per level, -1 where padded. */
  codes: Int32Array;
  /** int32 [H] bucket of the age at the request, 0 to NUM_AGE_BUCKETS - 1; 0 where padded. */
  ages: Int32Array;
  /** int32 [H] index of the item's scenario; 0 where padded. */
  scenarios: Int32Array;
}

/** Model inputs of one request: SID codes of the history, newest first. */
export interface RequestTensors {
  scenario: string;
  behaviours: Record<Behaviour, BehaviourTensors>;
}

/** Item-side features I_item of the item tower (paper, equation 4). */
export interface ItemTensors {
  scenario: string;
  /** int32 [NUM_ITEM_HASHES] non-negative 31-bit hashes of category, seller, price bucket and tags; -1 where absent. */
  hashes: Int32Array;
  /** int32 [NUM_ITEM_SIDS, 3] global embedding rows: own SID (-1 for live rooms), then the products on sale; -1 where absent. */
  codes: Int32Array;
}

/** Semantic ID as the models need it: codes of the version that the model belongs to. */
export interface SidCodes {
  scenario: string;
  c1: number;
  c2: number;
  c3: number;
}

export type NumCodes = Readonly<Record<string, readonly [number, number, number]>>;
