/**
 * consumes        codebooks, policy-versions, item-sids and live-sids until there is something to fork to
 * produces        the first checkpoint of a new lineage: weights and moments of the policy in use carried over to newer codebooks
 * waits for       codebooks above those of the policy in use, and a SID in them for everything that has one
 * is unblocked by the live-sid-updater having tokenized the catalogue
 * commits when    the checkpoint is durable. A fork that ends later goes on from its own checkpoints
 */
import type { Codebook } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { type CodeMatch, forkState, matchedShares, readPolicyManifest } from '@onemall/learning';
import { readContinues } from '@onemall/quantization';
import type { ServiceContext } from '@onemall/service-kit';
import { CheckpointStore } from './adapters/checkpoint-store.ts';
import { forkName, lineageInUse } from './adapters/lineages.ts';
import { newestPolicy } from './adapters/policy-publisher.ts';
import { createTrainer } from './adapters/retriever-learner.ts';
import { SidCoverage } from './adapters/sid-coverage.ts';
import type { TrainerConfig } from './config.ts';
import type { Codebooks } from './learner.ts';
import { type ForkPlan, forkProgress, planFork } from './stages/plan-fork.ts';

const LOOK_EVERY_MS = 1_000;
const MODEL = 'retriever';
type Fork = Extract<ForkPlan, { kind: 'fork' }>;
type Context = ServiceContext<TrainerConfig>;

export interface ForkedLineage {
  /** Of its checkpoints. */
  name: string;
  /** Codebooks of the policy in use. */
  inUse: Codebooks;
}

/** Waits for something to fork to and sees that its lineage has a checkpoint. @returns null when the service stops before */
export async function forkedLineage(context: Context, io: KafkaIo): Promise<ForkedLineage | null> {
  const { artifacts, config, log } = context;
  const scenarios = Object.keys(config.scenarios).sort();
  const newest = new Map<string, Codebook>();
  const fork = await awaitFork(context, io, scenarios, newest);
  if (!fork) return null;
  const { codebookVersions } = fork.inUse;
  const { numCodes } = readPolicyManifest(await artifacts.get(fork.inUse));
  const inUse: Codebooks = { codebookVersions, numCodes };
  const name = forkName(MODEL, fork.to.codebookVersions);
  const store = new CheckpointStore(artifacts, name, config.keepCheckpoints, log);
  if ((await store.list()).length === 0) await saveForked(context, store, fork, newest);
  return { name, inUse };
}

async function awaitFork(
  { clock, config, fail, log, meter, stopping }: Context,
  io: KafkaIo,
  scenarios: readonly string[],
  newest: Map<string, Codebook>,
): Promise<Fork | null> {
  const coverage = await SidCoverage.open(io, fail);
  const codebooks = await io.openTable({
    topic: 'codebooks',
    onRecord: ({ key, value }) => {
      if (value && value.codebookVersion >= (newest.get(key)?.codebookVersion ?? 0)) newest.set(key, value);
    },
    onError: fail,
  });
  try {
    for (let told = ''; !stopping.aborted; ) {
      await codebooks.readToEnd();
      await coverage.readToEnd();
      const plan = planFork(
        scenarios,
        await newestPolicy(io, 'RETRIEVER'),
        newest,
        (to, from) => coverage.missing(to, from),
        { nowMs: clock.nowMs(), quietMs: config.forkQuietMs },
      );
      meter.set('fork_waiting', plan.kind === 'wait' ? 1 : 0, 'The fork has nothing to do');
      if (plan.kind === 'fork') return plan;
      if (plan.why !== told) log.info({ why: plan.why }, 'the fork waits');
      told = plan.why;
      await clock.sleep(LOOK_EVERY_MS, stopping).catch(() => {});
    }
    return null;
  } finally {
    await codebooks.close();
    await coverage.close();
  }
}

/** The newest checkpoint of the lineage in use on the new codebooks, as the first one of the fork. */
async function saveForked(
  context: Context,
  store: CheckpointStore,
  { inUse, to }: Fork,
  newest: ReadonlyMap<string, Codebook>,
): Promise<void> {
  const { artifacts, clock, config, log, meter } = context;
  const scenarios = Object.keys(to.codebookVersions).sort();
  const from = await lineageInUse(artifacts, MODEL, inUse, log);
  const old = await new CheckpointStore(artifacts, from, config.keepCheckpoints, log).loadNewest();
  if (!old) throw new Error(`There is no checkpoint in checkpoints/${from} to fork from`);
  const match = await matchOf(context, old.checkpoint, to, newest);
  const fresh = await createTrainer(config, scenarios, to, log);
  const state = forkState(old.state.trainer, await fresh.state(), match);
  await fresh.close();
  const shares = matchedShares(match);
  for (const [scenario, levels] of Object.entries(shares))
    for (const [l, share] of levels.entries()) meter.set(`fork_matched_${scenario}_${l + 1}`, share);
  const stored = await store.save(
    {
      ...{ model: MODEL, scenarios, ...to, seed: config.seed, createdMs: clock.nowMs() },
      progress: forkProgress(old.checkpoint.progress, config.forkTailSamples),
    },
    { trainer: state, extra: null },
  );
  log.info({ from: old.stored.uri, to: stored.uri, ...to, matched: shares }, 'forked to newer codebooks');
}

/** What each new code continues, as the job that trained the codebook wrote it beside its files. */
async function matchOf(
  { artifacts, log }: Context,
  old: Codebooks,
  to: Codebooks,
  newest: ReadonlyMap<string, Codebook>,
): Promise<CodeMatch> {
  const match: Record<string, CodeMatch[string]> = {};
  for (const [scenario, version] of Object.entries(to.codebookVersions)) {
    const before = old.codebookVersions[scenario];
    const each = (of: (code: number) => number) =>
      to.numCodes[scenario]!.map((k) => Int32Array.from({ length: k }, (_, code) => of(code))) as [
        Int32Array,
        Int32Array,
        Int32Array,
      ];
    if (before === version) {
      match[scenario] = each((code) => code);
      continue;
    }
    const continues = readContinues(await artifacts.get(newest.get(scenario)!));
    if (continues && continues.version === before) match[scenario] = continues.match;
    else {
      log.warn(
        { scenario, version, continues: continues?.version ?? null, trained: before },
        'the newer codebook continues another version than the weights have: its codes begin anew',
      );
      match[scenario] = each(() => -1);
    }
  }
  return match;
}
