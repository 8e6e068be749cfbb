/** The engine that the configuration names is the one that trains, and the log says so. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '@onemall/service-kit';
import { createTrainer } from '../src/adapters/retriever-learner.ts';
import { trainerConfig } from '../src/config.ts';
import { NUM_CODES, SCENARIOS } from './synthetic.ts';

const codebooks = {
  codebookVersions: {},
  numCodes: Object.fromEntries(SCENARIOS.map((s) => [s, NUM_CODES])),
};

for (const [given, taken, described] of [
  [undefined, 'cpu', /onnxruntime/],
  ['wasm', 'wasm', /TensorFlow/],
] as const)
  test(`ONEMALL_TRAINER_ENGINE ${given ?? 'left out'} trains on ${taken}`, async (context) => {
    const config = trainerConfig({
      ONEMALL_TRAINER_PRESET: 'tiny',
      ...(given && { ONEMALL_TRAINER_ENGINE: given }),
    });
    const log = createLogger('trainer', 'silent');
    const said = context.mock.method(log, 'info');
    const trainer = await createTrainer(config, SCENARIOS, codebooks, log);
    await trainer.close();
    const choice = said.mock.calls.map((call) => call.arguments[0] as { name: string; description: string });
    assert.deepEqual(
      choice.map(({ name }) => name),
      [taken],
    );
    assert.match(choice[0]!.description, described);
  });

test('an engine that does not exist is refused by name', () => {
  assert.throws(() => trainerConfig({ ONEMALL_TRAINER_ENGINE: 'tpu' }), /ONEMALL_TRAINER_ENGINE/);
});
