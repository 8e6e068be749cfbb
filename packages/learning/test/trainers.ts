/** Small trainers on the synthetic world, closed when the file's tests are over. */
import { after } from 'node:test';
import { createRetrievalTrainer, type RetrievalTrainer, type RetrievalTrainerOptions } from '../src/index.ts';
import { NUM_CODES, SCENARIOS } from './synthetic.ts';

/** Events per behaviour that the preset reads. */
export const H = 6;

const open: RetrievalTrainer[] = [];
after(() => Promise.all(open.map((trainer) => trainer.close())));

export async function create(options: Partial<RetrievalTrainerOptions> = {}): Promise<RetrievalTrainer> {
  const trainer = await createRetrievalTrainer({
    preset: 'tiny',
    scenarios: SCENARIOS,
    numCodes: NUM_CODES,
    seed: 1,
    optimizer: { warmupSteps: 10 },
    ...options,
  });
  open.push(trainer);
  return trainer;
}
