import assert from 'node:assert/strict';
import { createRetrievalTrainer, type EngineName } from '../src/index.ts';
import { NUM_CODES, randomGroup, randomSamples, randomSource, SCENARIOS } from './synthetic.ts';

/** Figures of three steps with reward groups, then of held-out samples, on one engine. */
async function train(name: EngineName) {
  let description = '';
  const trainer = await createRetrievalTrainer({
    preset: 'tiny',
    scenarios: SCENARIOS,
    numCodes: NUM_CODES,
    seed: 3,
    batchSize: 8,
    rl: { form: 'grpo' },
    optimizer: { warmupSteps: 0, learningRate: 1e-3 },
    engine: {
      name,
      onChosen: (choice) => {
        description = choice.description;
      },
    },
  });
  const random = randomSource(12);
  const losses: number[] = [];
  for (let step = 0; step < 3; step++) {
    const samples = randomSamples(random, 8, trainer.historyLength);
    const groups = step === 1 ? [randomGroup(random, trainer.historyLength, 4)] : [];
    losses.push((await trainer.step({ samples, groups })).loss.total);
  }
  const held = randomSamples(random, 5, trainer.historyLength);
  const { tokenLogProbs } = await trainer.evaluate(held);
  const { vectors } = await trainer.embedItems(held.map((sample) => sample.item));
  const files = await trainer.exportPolicy({ policyVersion: 'p', codebookVersions: {} });
  await trainer.close();
  return { description, figures: [...losses, ...tokenLogProbs, ...vectors], files: [...files.keys()] };
}

/** A trainer on this engine gives what one on onnxruntime's CPU provider gives. */
export async function assertTrainsAsOnnxruntime(name: EngineName, description: RegExp): Promise<void> {
  const expected = await train('cpu');
  assert.match(expected.description, /onnxruntime/);
  const actual = await train(name);
  assert.match(actual.description, description);
  assert.deepEqual(actual.files, expected.files);
  assert.equal(actual.figures.length, expected.figures.length);
  actual.figures.forEach((value, i) => {
    assert.ok(
      Math.abs(value - expected.figures[i]!) < 2e-3,
      `${name}, figure ${i}: ${value}, ${expected.figures[i]}`,
    );
  });
}
