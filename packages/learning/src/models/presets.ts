/** Sizes of the models by name. The paper's table 1 has its own names; tiny and small are for tests and for two CPU cores. */

export interface RetrievalPreset {
  name: string;
  /** D, attention and embedding dimension. */
  dim: number;
  /** Decoder layers. */
  layers: number;
  heads: number;
  /** Inner size of an expert, or of the dense feed-forward where experts is 1. */
  ffnDim: number;
  /** 1 is a dense feed-forward network. */
  experts: number;
  /** Experts that see a token; 2 in the paper, 1 where experts is 1. */
  activeExperts: number;
  /** Slots of an expert = capacityFactor x tokens x activeExperts / experts, at least one for each RL token. */
  capacityFactor: number;
  /** u of loss-free balancing: b_e += u sign(mean(c) - c_e). */
  balanceRate: number;
  /** sublayer: a residual around each of cross-attention, self-attention and MoE; layer: one around the three (paper, equation 6). */
  residual: 'sublayer' | 'layer';
  /**
   * Embeddings of codes start at N(0, 1 / D) / gain and are multiplied by the gain: with the same learning rate they learn that
   * much faster. Default 1.
   */
  embeddingGain?: number;
  /** M learned queries per behaviour; 0: no Query-Former, the decoder reads every event of the histories (paper, table 6). */
  queries: number;
  /** false: attention to sequences always projects keys and values, as the paper counts its operations. Default: where it is cheaper. */
  absorb?: boolean;
  /** Cross-attention blocks of a Query-Former. */
  queryBlocks: number;
  /** Learned queries of the item tower. */
  itemQueries: number;
  /** Rows of the table that item feature hashes fall into. */
  itemHashRows: number;
  /** Decoder position that meets f_item: after s3 (paper) or at BOS (gives a dense retrieval head). */
  contrastAt: 's3' | 'bos';
  /** Temperature of the contrast. */
  temperature: number;
  /** H, events per behaviour. */
  historyLength: number;
  /** B, samples per step. */
  batchSize: number;
  learningRate: number;
}

const paper = {
  dim: 1024,
  heads: 8,
  ffnDim: 4096,
  capacityFactor: 1.25,
  balanceRate: 1e-3,
  residual: 'sublayer',
  queries: 10,
  queryBlocks: 2,
  itemQueries: 4,
  itemHashRows: 1 << 20,
  contrastAt: 's3',
  temperature: 0.1,
  historyLength: 500,
  batchSize: 512,
  learningRate: 2e-4,
} as const;

export const retrievalPresets = {
  /** For tests: a step takes a few milliseconds. */
  tiny: {
    name: 'tiny',
    dim: 32,
    layers: 1,
    heads: 4,
    ffnDim: 64,
    experts: 4,
    activeExperts: 2,
    capacityFactor: 2,
    balanceRate: 1e-3,
    residual: 'sublayer',
    queries: 2,
    queryBlocks: 1,
    itemQueries: 2,
    itemHashRows: 256,
    contrastAt: 'bos',
    temperature: 0.1,
    historyLength: 6,
    batchSize: 16,
    learningRate: 1e-2,
  },
  /** For two CPU cores shared with the rest of the pipeline. */
  small: {
    name: 'small',
    dim: 64,
    layers: 2,
    heads: 4,
    ffnDim: 256,
    experts: 8,
    activeExperts: 2,
    capacityFactor: 1.5,
    balanceRate: 1e-3,
    residual: 'sublayer',
    queries: 4,
    queryBlocks: 1,
    itemQueries: 2,
    itemHashRows: 4096,
    contrastAt: 'bos',
    temperature: 0.1,
    historyLength: 20,
    batchSize: 64,
    learningRate: 3e-3,
  },
  /** A step up from small where a process has cores or a device of its own. */
  medium: {
    name: 'medium',
    dim: 128,
    layers: 2,
    heads: 8,
    ffnDim: 512,
    experts: 12,
    activeExperts: 2,
    capacityFactor: 1.5,
    balanceRate: 1e-3,
    residual: 'sublayer',
    queries: 10,
    queryBlocks: 1,
    itemQueries: 4,
    itemHashRows: 16384,
    contrastAt: 'bos',
    temperature: 0.1,
    historyLength: 50,
    batchSize: 64,
    learningRate: 2e-3,
  },
  /** Paper, table 1. */
  'paper-0.05b': { ...paper, name: 'paper-0.05b', layers: 2, experts: 1, activeExperts: 1 },
  'paper-0.1b': { ...paper, name: 'paper-0.1b', layers: 4, experts: 1, activeExperts: 1 },
  'paper-0.5b-a0.1b': { ...paper, name: 'paper-0.5b-a0.1b', layers: 4, experts: 12, activeExperts: 2 },
  'paper-1.3b-a0.1b': { ...paper, name: 'paper-1.3b-a0.1b', layers: 4, experts: 24, activeExperts: 2 },
} as const satisfies Record<string, RetrievalPreset>;
export type RetrievalPresetName = keyof typeof retrievalPresets;

export interface RankerPreset {
  name: string;
  /** Length of a hashed id's embedding. */
  idDim: number;
  /** Rows of the id table; ids are taken modulo this. */
  idRows: number;
  /** Hidden layers of the shared bottom. */
  hidden: readonly number[];
  batchSize: number;
  learningRate: number;
}

export const rankerPresets = {
  tiny: { name: 'tiny', idDim: 4, idRows: 256, hidden: [16], batchSize: 32, learningRate: 5e-3 },
  small: { name: 'small', idDim: 16, idRows: 16384, hidden: [128, 64], batchSize: 256, learningRate: 1e-3 },
} as const satisfies Record<string, RankerPreset>;
export type RankerPresetName = keyof typeof rankerPresets;
