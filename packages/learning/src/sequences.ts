/** The package's entry for studies (apps/evaluate). */
export {
  type Arrays,
  type ForwardPass,
  type ModelState,
  ModelTrainer,
  type ModelTrainerOptions,
} from './model-trainer.ts';
export {
  cacheWidth,
  contextLength,
  type SequenceModel,
  sequenceContext,
  sequenceDense,
  sequenceItems,
  sequencePass,
  sequenceStep,
  singleLayout,
} from './models/onemall-sequences.ts';
export type { RetrievalPreset } from './models/presets.ts';
export { type RetrievalCost, retrievalCost } from './models/retrieval-cost.ts';
export {
  SASREC_ITEMS,
  type SasrecSizes,
  sasrecHidden,
  sasrecPass,
  sasrecScores,
} from './models/sasrec.ts';
