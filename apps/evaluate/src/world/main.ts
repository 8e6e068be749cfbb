/** `world hit-rates` and `world rl`: tables on the evaluation world. A run that is stopped goes on; `--folder` names it. */
import { parseArgs } from 'node:util';
import { type RetrievalPresetName, retrievalPresets } from '@onemall/learning';
import { readEvaluationPlan } from './plan.ts';
import { runRl } from './rl-study.ts';
import { runHitRates, type WorldRun } from './run-world.ts';

const USAGE = `usage: world hit-rates | rl [--folder DIR] [--positives N] [--requests N] [--preset NAME] [--history H] [--seed S]
  rl: [--rl-steps N] [--rollout BEAM] [--ranker-samples N]`;

/** @returns the report in Markdown @throws Error naming what is wrong with the arguments */
export async function world(args: readonly string[]): Promise<string> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      folder: { type: 'string', default: '.data/evaluate/world' },
      positives: { type: 'string', default: '200000' },
      requests: { type: 'string', default: '20000' },
      preset: { type: 'string', default: 'small' },
      history: { type: 'string', default: '50' },
      seed: { type: 'string', default: '1' },
      'rl-steps': { type: 'string', default: '1000' },
      rollout: { type: 'string', default: '768' },
      'ranker-samples': { type: 'string', default: '300000' },
    },
  });
  const count = (name: keyof typeof values): number => {
    const n = Number(values[name]);
    if (!Number.isInteger(n) || n < 0)
      throw new Error(`--${name} takes a whole number, got ${values[name]}\n${USAGE}`);
    return n;
  };
  if (!Object.hasOwn(retrievalPresets, values.preset))
    throw new Error(`No preset ${values.preset}: there are ${Object.keys(retrievalPresets).join(', ')}`);
  const run: WorldRun = {
    plan: readEvaluationPlan(),
    folder: values.folder,
    positives: count('positives'),
    requests: count('requests'),
    preset: values.preset as RetrievalPresetName,
    historyLength: count('history'),
    seed: count('seed'),
    print: (line) => console.error(`${new Date().toISOString().slice(11, 19)} ${line}`),
  };
  const [command] = positionals;
  if (command === 'hit-rates') return runHitRates(run);
  if (command === 'rl')
    return runRl({
      ...run,
      rlSteps: count('rl-steps'),
      rolloutWidth: count('rollout'),
      rankerSamples: count('ranker-samples'),
      rankerPreset: 'small',
      syncSteps: 200,
    });
  throw new Error(`Unknown command ${command ?? '(none)'}\n${USAGE}`);
}

if (import.meta.main) console.log(await world(process.argv.slice(2)));
