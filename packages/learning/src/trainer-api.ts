/** The package's entry for services that train. */
export { createRankerTrainer } from './ranker-trainer.ts';
export { createRetrievalTrainer } from './retrieval-trainer.ts';
