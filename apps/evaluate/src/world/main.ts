/** `evaluate -- world` and `evaluate -- rl`: tables on the evaluation world. A run that is stopped goes on; `--folder` names it. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type RetrievalPresetName, retrievalPresets } from '@onemall/learning';
import { engineOf } from '../engine-option.ts';
import { planNames, readEvaluationPlan } from './log/plan.ts';
import { runRl } from './run-rl.ts';
import { runHitRates } from './run-world.ts';
import { WORLD_MODELS, type WorldRun } from './samples/prepare-world.ts';
import type { RlRun } from './training/reward-groups.ts';

const USAGE = `usage: world | rl [--plan NAME] [--folder DIR] [--positives N] [--epochs N] [--requests N] [--preset NAME] [--history H] [--seed S | --seeds S,S,..] [--engine NAME]
  world: [--models onemall,onemall-events,onemall-clicks,sasrec,tiger] [--judge-minutes N]
  rl: [--rl-steps N] [--rollout BEAM] [--ranker-samples N] [--groups N] [--group-candidates N] [--sync STEPS] [--rl-weight W]`;

export type WorldKind = 'world' | 'rl';
export const isWorldKind = (kind: string): kind is WorldKind => kind === 'world' || kind === 'rl';

/** @returns the report in Markdown, which lies in the folder as well @throws Error naming what is wrong with the arguments */
export async function world(kind: WorldKind, args: readonly string[]): Promise<string> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      folder: { type: 'string', default: '.data/evaluate/world' },
      plan: { type: 'string', default: 'evaluation' },
      positives: { type: 'string', default: '200000' },
      epochs: { type: 'string', default: '1' },
      requests: { type: 'string', default: '20000' },
      preset: { type: 'string', default: 'small' },
      history: { type: 'string', default: '50' },
      seed: { type: 'string', default: '1' },
      seeds: { type: 'string' },
      engine: { type: 'string', default: 'cpu' },
      models: { type: 'string', default: 'onemall,sasrec,tiger' },
      'judge-minutes': { type: 'string' },
      'rl-steps': { type: 'string', default: '1000' },
      rollout: { type: 'string', default: '768' },
      'ranker-samples': { type: 'string', default: '300000' },
      groups: { type: 'string', default: '4' },
      'group-candidates': { type: 'string', default: '32' },
      sync: { type: 'string', default: '50' },
      'rl-weight': { type: 'string', default: '0.5' },
    },
  });
  const count = (name: keyof typeof values, least = 0): number => {
    const n = Number(values[name]);
    if (!Number.isInteger(n) || n < least)
      throw new Error(`--${name} takes a whole number of at least ${least}, got ${values[name]}\n${USAGE}`);
    return n;
  };
  if (!Object.hasOwn(retrievalPresets, values.preset))
    throw new Error(`No preset ${values.preset}: there are ${Object.keys(retrievalPresets).join(', ')}`);
  const plan = planNames.find((name) => name === values.plan);
  if (!plan) throw new Error(`No plan ${values.plan}: there are ${planNames.join(', ')}`);
  const models = values.models.split(',').map((name) => {
    const model = WORLD_MODELS.find((known) => known === name);
    if (!model) throw new Error(`No model ${name}: there are ${WORLD_MODELS.join(', ')}\n${USAGE}`);
    return model;
  });
  const print = (line: string): void => console.error(`${new Date().toISOString().slice(11, 19)} ${line}`);
  const run: WorldRun = {
    models,
    plan: readEvaluationPlan(plan),
    epochs: count('epochs'),
    folder: values.folder,
    positives: count('positives'),
    requests: count('requests'),
    preset: values.preset as RetrievalPresetName,
    historyLength: count('history'),
    seed: count('seed'),
    engine: engineOf(values.engine, print),
    print,
  };
  const seeds = values.seeds?.split(',');
  if (seeds?.some((seed) => !/^\d+$/.test(seed)) || new Set(seeds).size < (seeds?.length ?? 0))
    throw new Error(`--seeds takes distinct whole numbers as 1,2,3; got ${values.seeds}\n${USAGE}`);
  const bySeed = <R extends WorldRun>(of: R): R[] =>
    seeds?.map((seed) => ({ ...of, seed: Number(seed), folder: path.join(of.folder, `seed-${seed}`) })) ?? [
      of,
    ];
  const kept = (report: string): string => {
    writeFileSync(path.join(values.folder, `${kind}.md`), `${report}\n`);
    return report;
  };
  if (kind === 'world') {
    const judgeMinutes =
      values['judge-minutes'] === undefined ? {} : { judgeMinutes: count('judge-minutes') };
    return kept(await runHitRates(...bySeed({ ...run, ...judgeMinutes })));
  }
  const rlWeight = Number(values['rl-weight']);
  if (!(rlWeight >= 0 && rlWeight < Number.POSITIVE_INFINITY))
    throw new Error(`--rl-weight takes a number of at least 0, got ${values['rl-weight']}\n${USAGE}`);
  const rl: RlRun = {
    ...run,
    rlSteps: count('rl-steps', 1),
    rolloutWidth: count('rollout', 2),
    rankerSamples: count('ranker-samples', 1),
    rankerPreset: 'small',
    syncSteps: count('sync', 1),
    groupsPerStep: count('groups', 1),
    groupCandidates: count('group-candidates', 2),
    rlWeight,
  };
  return kept(await runRl(bySeed(rl)));
}
