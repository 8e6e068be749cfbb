/** Puts a trainer together: resumes from the newest checkpoint, opens what the model needs, and trains. */
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { TopicName } from '@onemall/contracts';
import { sidLayout } from '@onemall/features';
import { connectKafka, type KafkaIo, kafkaSettings } from '@onemall/kafka-io';
import { PublishedModelError } from '@onemall/learning';
import { ArtifactError, ConfigError, type RunningService, type ServiceContext } from '@onemall/service-kit';
import { CheckpointStore } from './adapters/checkpoint-store.ts';
import { DeadLetters } from './adapters/dead-letters.ts';
import { ItemVectors } from './adapters/item-vectors.ts';
import { lineageInUse } from './adapters/lineages.ts';
import { ManifestJournal } from './adapters/manifest-journal.ts';
import { newestPolicy, PolicyPublisher } from './adapters/policy-publisher.ts';
import { RewardFeed } from './adapters/reward-feed.ts';
import { SampleFeed } from './adapters/sample-feed.ts';
import type { SidTables } from './adapters/sid-tables.ts';
import { TrainingReport } from './adapters/training-report.ts';
import type { TrainerConfig } from './config.ts';
import { forkedLineage } from './fork.ts';
import type { Codebooks, Learner, ModelGate } from './learner.ts';
import { trainOnStream } from './pipeline.ts';
import { Release } from './release.ts';
import type { Checkpoint, Progress } from './stages/checkpoint-format.ts';
import { freshLossGuard } from './stages/guard-loss.ts';
import { replayable } from './stages/manifest.ts';

type Context = ServiceContext<TrainerConfig>;

const INPUTS: Record<TrainerConfig['model'], TopicName[]> = {
  retriever: ['training-samples', 'reward-batches', 'item-sids', 'live-sids', 'codebooks', 'items'],
  ranker: ['training-samples'],
};
const ALWAYS: TopicName[] = ['policy-versions', 'training-metrics', 'dead-letters'];
const OUTPUTS: Record<TrainerConfig['model'], TopicName[]> = {
  retriever: [...ALWAYS, 'item-embeddings'],
  ranker: ALWAYS,
};

const atTheBeginning: Progress = {
  step: 0,
  samples: 0,
  positions: [],
  cursor: 0,
  rewardPositions: [],
  usedRequestIds: [],
  tableOffsets: {},
  guard: freshLossGuard,
  lossFirst: null,
};

const ONE_HOUR_MS = 3_600_000;
const largestWindowMs = ({ scenarios }: TrainerConfig): number =>
  Math.max(...Object.values(scenarios).flatMap((s) => [s.clickWindowMs, s.buyWindowMs]));

/** Resolves when Kafka answers; what the trainer still waits for then stands in its log and status. */
export async function startTrainer(context: Context, openLearner: OpenLearner): Promise<RunningService> {
  const { config, fail } = context;
  const io = await connectKafka({
    ...kafkaSettings(config),
    clientId: `trainer-${config.model}`,
    validation: {
      scenarios: new Set(Object.keys(config.scenarios)),
      allowedClockSkewMs: config.allowedClockSkewMs,
    },
  });
  await io.checkTopics([...INPUTS[config.model], ...OUTPUTS[config.model]], {
    largestWindowMs: largestWindowMs(config),
    graceMs: config.graceMs,
    longestOutageMs: config.longestOutageMs,
  });
  await io.registerSchemas(OUTPUTS[config.model]);
  const open = new Closers();
  const trained = openAndTrain(context, io, open, openLearner).catch((error) => {
    if (!context.stopping.aborted) fail(error);
    else context.log.warn({ err: error }, 'while stopping');
  });
  return {
    async stop() {
      await trained;
      await open.close();
      await io.close();
    },
  };
}

/** What opening a model gives. */
export interface OpenedLearner {
  learner: Learner;
  tables: SidTables | null;
  codebooks: Codebooks;
  /** null: nothing is held back to measure on. */
  gate: ModelGate | null;
}
/** @returns null when the service stopped while it waited */
export type OpenLearner = (
  context: Context,
  io: KafkaIo,
  open: Closers,
  scenarios: readonly string[],
  checkpoint: Checkpoint | null,
  /** Codebooks of the policy in use where a fork is to be compared with it. */
  inUse: Codebooks | null,
) => Promise<OpenedLearner | null>;

async function openAndTrain(
  context: Context,
  io: KafkaIo,
  open: Closers,
  openLearner: OpenLearner,
): Promise<void> {
  const { config, log, clock, meter, artifacts, fail, stopping } = context;
  const { model } = config;
  const scenarios = Object.keys(config.scenarios).sort();
  const fork = config.fork ? await forkedLineage(context, io) : null;
  if (config.fork && !fork) return; // stopped while waiting
  const folder = path.join(config.dataDir, `trainer-${model}${fork ? '-fork' : ''}`);
  const kind = model === 'retriever' ? 'RETRIEVER' : 'RANKER';
  const lineage = fork?.name ?? (await lineageInUse(artifacts, model, await newestPolicy(io, kind), log));
  const checkpoints = new CheckpointStore(artifacts, lineage, config.keepCheckpoints, log);
  const resumed = await checkpoints.loadNewest();
  if (resumed && resumed.checkpoint.scenarios.join() !== scenarios.join())
    throw new ConfigError(
      `The checkpoint ${resumed.stored.uri} belongs to the scenarios ${resumed.checkpoint.scenarios.join(', ')}, configured are ${scenarios.join(', ')}. Configure those again, or remove the checkpoints to begin anew.`,
    );
  log.info(
    resumed
      ? { uri: resumed.stored.uri, step: resumed.stored.step }
      : { from: 'the earliest retained sample' },
    resumed ? 'resuming from a checkpoint' : 'no checkpoint: a new model',
  );

  const { checkpoint = null } = resumed ?? {};
  const opened = await openLearner(context, io, open, scenarios, checkpoint, fork?.inUse ?? null);
  if (!opened) return; // stopped while waiting
  const { learner, tables, codebooks, gate } = opened;
  if (resumed) await learner.restore(resumed.state);

  const publisher = open.add(
    await PolicyPublisher.open(
      {
        ...{ io, artifacts, clock, log, stopping },
        keep: config.keepPolicies,
        takesOverLater: fork !== null,
      },
      model,
    ),
  );
  const stepInUse = gate && (await compareWithPublished(context, io, kind, gate));
  // The checkpoints of the policy that a fork is held to lie elsewhere.
  if (!fork) checkpoints.stepInUse = stepInUse;
  const progress = resumed?.checkpoint.progress ?? atTheBeginning;
  const settings = JSON.stringify([
    config.seed,
    learner.batchSize,
    config.heldBackFraction,
    config.trainShare,
    codebooks.codebookVersions,
    // manifests of the past that was given up are not repeated
    ...(progress.rollbacks === undefined ? [] : [progress.rollbacks]),
  ]);
  const positions = resumed
    ? new Map(progress.positions)
    : new Map((await io.endOffsets('training-samples')).map(({ partition }) => [partition, 0]));
  const written = await ManifestJournal.read(folder);
  const replay = replayable(written, progress.step, positions, settings);
  const journal = open.add(
    await ManifestJournal.take(folder, [...written.filter((m) => m.step <= progress.step), ...replay]),
  );
  if (written.length > 0) log.info({ steps: replay.length }, 'repeating the steps after the checkpoint');

  const writer = open.add(await io.openWriter());
  const sent = new Map(
    (replay.at(-1)?.ranges ?? []).map((r) => [`training-samples-${r.partition}`, r.to] as const),
  );
  const deadLetters = new DeadLetters(io, writer, log, meter, sent);
  const samples = open.add(
    await SampleFeed.open({
      io,
      log,
      meter,
      deadLetters,
      scenarios: new Set(scenarios),
      leavesOut: (sample) => learner.leavesOut(sample),
      ...(gate && { onHeldBack: (sample) => gate.see(sample) }),
      batchSize: learner.batchSize,
      maxBuffered: config.maxBufferedBatches * learner.batchSize,
      resume: resumed && { positions, cursor: progress.cursor },
      // A fork's tail may reach back behind what is retained.
      acceptLostSamples: config.acceptLostSamples || fork !== null,
      stopping,
    }),
  );
  const rewards =
    // Rewards of the policy in use belong to its codebooks: a fork gets its own once it is in use and a trainer resumes it.
    model === 'ranker' || config.rlMode === 'off' || fork
      ? null
      : open.add(
          await RewardFeed.open({
            io,
            log,
            meter,
            deadLetters,
            rules: { ...codebooks, maxLagSteps: config.rlMaxLagSteps, form: config.rlMode },
            heldBackFraction: config.heldBackFraction,
            maxPerStep: config.rlMaxGroups,
            spreadSteps: config.rlSpreadSteps,
            rememberedRequests: config.rlRememberedRequests,
            resume: resumed && {
              positions: new Map(progress.rewardPositions),
              usedRequestIds: progress.usedRequestIds,
            },
            stopping,
          }),
        );
  const report = new TrainingReport(samples, writer, clock, log, meter, learner);
  const vectors =
    tables &&
    open.add(
      await ItemVectors.open({
        ...{ io, clock, meter, writer, onError: fail },
        layout: sidLayout(scenarios, codebooks.numCodes),
        sidOf: tables.sidOf,
        itemsPerPolicy: config.itemVectorsPerPolicy,
      }),
    );
  const release = new Release({
    ...{ learner, gate, vectors, publisher, report, log, meter, stopping },
    onPublished: ({ step }) => {
      checkpoints.stepInUse = step;
      if (fork) meter.set('fork_took_over', 1, 'The policy in use is this fork');
    },
  });
  meter.set('rollbacks', progress.rollbacks ?? 0, 'Times that training went back to the policy in use');
  const training = {
    ...{ config, clock, log, stopping, learner, tables, rewards, samples, journal, checkpoints },
    ...{ gate, release, report, replay, settings, progress },
    keepSidsMs: ONE_HOUR_MS + 2 * (largestWindowMs(config) + config.graceMs),
    identity: { model, scenarios, seed: config.seed, ...codebooks },
  };

  report.standsAt(progress);
  meter.set('train_share', config.trainShare, 'Share of the samples that would train which does');
  const reading = [samples.run(), rewards?.run()];
  for (const loop of reading) loop?.catch(fail);
  await Promise.race([rewards?.caughtUp, untilAborted(stopping)]);
  const reporting = reportEvery(context, async () => report.tick(training.progress));
  await trainOnStream(training); // a failure ends the process; the loops end with it
  await Promise.allSettled([...reading, reporting]);
}

/**
 * The gate holds new models to the one in use, also after a restart; without one to be had the next is published unjudged.
 * @returns its step
 */
async function compareWithPublished(
  { artifacts, log }: Context,
  io: KafkaIo,
  kind: Learner['kind'],
  gate: ModelGate,
): Promise<number | null> {
  const inUse = await newestPolicy(io, kind);
  if (!inUse) return null;
  const { policyVersion } = inUse;
  if (!isDeepStrictEqual(inUse.codebookVersions, gate.comparesWith)) {
    log.warn(
      { policyVersion },
      'the published policy has other codebook versions: the next one is not compared with it',
    );
    return null;
  }
  try {
    await gate.compareWith(await artifacts.get(inUse));
    log.info({ policyVersion }, 'new models are held to the published one');
    return inUse.step;
  } catch (error) {
    if (!(error instanceof ArtifactError || error instanceof PublishedModelError)) throw error;
    log.warn(
      { err: error, policyVersion },
      `the published model cannot be read: the next one is published unjudged. ${error.message}`,
    );
    return null;
  }
}

/** Metrics are a convenience: a failed write is logged, and training goes on. */
async function reportEvery(
  { clock, config, log, stopping }: Context,
  tick: () => Promise<void>,
): Promise<void> {
  while (!stopping.aborted) {
    await clock.sleep(config.metricsEveryMs, stopping).catch(() => {});
    if (stopping.aborted) return;
    await tick().catch((error) => log.warn({ err: error }, 'training-metrics were not written'));
  }
}

const untilAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });

/** Closes in the reverse order of opening. */
export class Closers {
  #all: { close(): Promise<void> }[] = [];
  add<T extends { close(): Promise<void> }>(resource: T): T {
    this.#all.push(resource);
    return resource;
  }
  async close(): Promise<void> {
    for (const resource of this.#all.reverse()) await resource.close();
  }
}
