/** Which processes make the pipeline, in the order of its flow, and what each is told. */
import { FlagError, type StartFlags } from './flags.ts';
import type { StageRole } from './run-history.ts';

export interface ProcessPlan {
  name: string;
  /** main.ts, relative to the repository's root. */
  entry: string;
  env: Record<string, string>;
  role: StageRole;
  /** 1: on the way to the first trained sample. The others start once these run, so that they do not slow them down. */
  wave: 1 | 2;
  /** A run without output of this one has failed. */
  mustProduce: boolean;
}

const service = (name: string, more: Partial<ProcessPlan> = {}): ProcessPlan => ({
  name,
  entry: `services/${name}/src/main.ts`,
  env: {},
  role: 'service',
  wave: 2,
  mustProduce: true,
  ...more,
});
const trainer = (model: string, wave: 1 | 2): ProcessPlan =>
  service(`trainer-${model}`, { entry: 'services/trainer/src/main.ts', env: { ONEMALL_MODEL: model }, wave });

/** In pipeline order: also the order in which they are stopped. */
const SERVICES: readonly ProcessPlan[] = [
  service('sample-assembler', { wave: 1 }),
  service('live-sid-updater', { wave: 1 }),
  trainer('retriever', 1),
  trainer('ranker', 2),
  service('retriever'),
  service('reward-scorer'),
  service('job-runner', { mustProduce: false }),
  service('metrics-sink'),
];
const DASHBOARD: ProcessPlan = {
  name: 'dashboard',
  entry: 'apps/dashboard/src/main.ts',
  env: {},
  role: 'view',
  wave: 2,
  mustProduce: false,
};

export interface PlanInput {
  flags: StartFlags;
  /** Without Redis there are no jobs, and everything else runs. */
  hasRedis: boolean;
}

/** @throws FlagError for an unknown name in --only */
export function planProcesses({ flags, hasRedis }: PlanInput): ProcessPlan[] {
  const wanted = (plan: ProcessPlan): boolean =>
    flags.only === null || flags.only.some((name) => plan.name === name || plan.entry.includes(`/${name}/`));
  for (const name of flags.only ?? [])
    if (!SERVICES.some((s) => s.name === name || s.entry.includes(`/${name}/`)))
      throw new FlagError(
        `--only names ${name}, which is no service: known are ${SERVICES.map((s) => s.name).join(', ')}`,
      );
  const services = SERVICES.filter((s) => wanted(s) && (hasRedis || s.name !== 'job-runner'));
  return [sourceProcess(flags), ...services, DASHBOARD];
}

function sourceProcess(flags: StartFlags): ProcessPlan {
  const base = { env: {}, role: 'source', wave: 1, mustProduce: true } as const;
  if (flags.source === 'simulator')
    return { ...base, name: 'simulator', entry: 'apps/simulator/src/main.ts' };
  return { ...base, name: 'replay', entry: 'apps/replay/src/main.ts' };
}
