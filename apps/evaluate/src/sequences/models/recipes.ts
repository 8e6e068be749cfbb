/** The generators that are compared: one model, and options that each row of the ablation changes by one. */
import type { SequenceSet } from '../stages/parse-sequences.ts';

export interface GeneratorRecipe {
  dim: number;
  heads: number;
  /** Of the causal encoder over the history, and of the decoder. */
  encoderLayers: number;
  layers: number;
  /** Inner size of the feed-forward networks, as a multiple of dim. */
  ffn: number;
  /** 1 is a dense feed-forward network. */
  experts: number;
  dropout: number;
  weightDecay: number;
  labelSmoothing: number;
  learningRate: number;
  /** Rows of LENGTH positions in a batch. */
  rows: number;
  epochs: number;
  validateEvery: number;
  positions: 'all' | 'last';
  history: 'causal' | 'query-former';
  normalizer: 'codes' | 'trie';
  contrastAt: 'bos' | 'last' | 'none';
  /** Where the tokens' vectors come from (see `forSet`), and the tokenizer's form. */
  tokenSource: 'sasrec' | 'text' | 'given';
  tokenForm: 'fsq' | 'rq';
  /** Whether SASRec's frozen item vectors join the codes of the history. */
  frozenVectors: boolean;
  /** Share of the targets drawn from SASRec's best; 0: no teacher. */
  teacherShare: number;
  beam: number;
}

export const ONEMALL: GeneratorRecipe = {
  dim: 128,
  heads: 4,
  encoderLayers: 2,
  layers: 2,
  ffn: 4,
  experts: 1,
  dropout: 0.2,
  weightDecay: 0.05,
  labelSmoothing: 0.1,
  learningRate: 2e-3,
  rows: 24,
  epochs: 20,
  validateEvery: 3,
  positions: 'all',
  history: 'causal',
  normalizer: 'trie',
  contrastAt: 'bos',
  tokenSource: 'sasrec',
  tokenForm: 'fsq',
  frozenVectors: true,
  teacherShare: 0.6,
  beam: 50,
};

/** TIGER's form (Rajput et al. 2023): tokens of texts, three residual levels and one that numbers equals, plain softmax. */
export const TIGER: GeneratorRecipe = {
  ...ONEMALL,
  normalizer: 'codes',
  contrastAt: 'none',
  tokenSource: 'text',
  tokenForm: 'rq',
  frozenVectors: false,
  teacherShare: 0,
  // the softmax over all codes also learns which of them exist, which takes longer
  epochs: 18,
};

/** One change each from a short run without teacher, frozen vectors or contrast. */
const REFERENCE: GeneratorRecipe = {
  ...ONEMALL,
  epochs: 6,
  contrastAt: 'none',
  frozenVectors: false,
  teacherShare: 0,
};

const WITHOUT_TEACHER: GeneratorRecipe = { ...ONEMALL, teacherShare: 0, epochs: 12 };

/** What is compared by default; SASRec comes before them. */
export const MAIN_ROWS: Readonly<Record<string, GeneratorRecipe>> = {
  onemall: ONEMALL,
  'onemall-without-teacher': WITHOUT_TEACHER,
  'onemall-without-sasrec': { ...WITHOUT_TEACHER, frozenVectors: false, tokenSource: 'text' },
  tiger: TIGER,
};

export const ABLATION_ROWS: Readonly<Record<string, GeneratorRecipe>> = {
  reference: REFERENCE,
  'all-codes-softmax': { ...REFERENCE, normalizer: 'codes' },
  'learning-rate-1e-3': { ...REFERENCE, learningRate: 1e-3 },
  teacher: { ...REFERENCE, teacherShare: 0.6 },
  'frozen-vectors': { ...REFERENCE, frozenVectors: true },
  'contrast-at-bos': { ...REFERENCE, contrastAt: 'bos' },
  'contrast-at-last': { ...REFERENCE, contrastAt: 'last' },
  'last-position': { ...REFERENCE, positions: 'last' },
  'query-former': { ...REFERENCE, history: 'query-former' },
  'text-tokens': { ...REFERENCE, tokenSource: 'text' },
  'experts-8': { ...REFERENCE, experts: 8 },
};

/** Tokens of texts are of the embeddings that the folder gives where it has no texts. */
export const forSet = (recipe: GeneratorRecipe, { texts, embeddings }: SequenceSet): GeneratorRecipe =>
  recipe.tokenSource === 'text' && !texts && embeddings ? { ...recipe, tokenSource: 'given' } : recipe;
