/**
 * Training on the stream, one step after the other.
 *
 * consumes      training-samples (all partitions, read_committed), reward-batches (retriever), item-sids and live-sids
 * produces      checkpoints, policy-versions, training-metrics, dead-letters
 * waits for     a full batch, or maxBatchWaitMs after a batch began to fill and every partition is read to its end;
 *               before the first step: the codebooks of all scenarios (retriever), the ends of the SID tables and of reward-batches
 * unblocked by  each fetch; a step that frees buffers lets paused partitions go on
 * commits when  the checkpoint interval has passed, at a step boundary: weights, optimizer, offsets, cursor, used reward
 *               groups and table offsets become durable as one artifact. A policy is published only from such a checkpoint,
 *               beside the next steps (release.ts)
 */
import type { Clock, Logger } from '@onemall/service-kit';
import type { CheckpointStore, StoredCheckpoint } from './adapters/checkpoint-store.ts';
import type { ManifestJournal } from './adapters/manifest-journal.ts';
import type { RewardFeed } from './adapters/reward-feed.ts';
import type { FedSample, SampleFeed } from './adapters/sample-feed.ts';
import type { SidTables } from './adapters/sid-tables.ts';
import type { TrainingReport } from './adapters/training-report.ts';
import type { TrainerConfig } from './config.ts';
import type { Learner, ModelGate } from './learner.ts';
import type { Release } from './release.ts';
import type { Checkpoint, Progress } from './stages/checkpoint-format.ts';
import type { Drawn } from './stages/draw-batch.ts';
import { guardLoss, IdleGuardNotice } from './stages/guard-loss.ts';
import type { StepManifest } from './stages/manifest.ts';
import {
  learnedFromRewards,
  progressAfterRollback,
  RolledBackError,
  rlShare,
} from './stages/plan-rollback.ts';

export interface Training {
  config: TrainerConfig;
  clock: Clock;
  log: Logger;
  stopping: AbortSignal;
  learner: Learner;
  /** null: the ranker reads no SIDs and no rewards. */
  tables: SidTables | null;
  rewards: RewardFeed | null;
  samples: SampleFeed;
  journal: ManifestJournal;
  checkpoints: CheckpointStore;
  gate: ModelGate | null;
  release: Release;
  report: TrainingReport;
  /** Steps of an earlier process after the checkpoint, to be repeated as they were. */
  replay: StepManifest[];
  /** What decides which samples make up a range; stands in each manifest. */
  settings: string;
  /** Parts of a checkpoint that never change. */
  identity: Pick<Checkpoint, 'model' | 'scenarios' | 'codebookVersions' | 'numCodes' | 'seed'>;
  progress: Progress;
  /** SID versions stay for requests this much older than those of the newest batch. */
  keepSidsMs: number;
}

/** Trains until the service stops, then writes a last checkpoint. @throws LossGuardError, FencedError, JournalTakenError, RolledBackError */
export async function trainOnStream(t: Training): Promise<void> {
  const due = dueTimes(t);
  const idleGuard = new IdleGuardNotice();
  let savedStep = t.progress.step;
  let coming = nextBatch(t);
  for (;;) {
    // The failure first: where a batch is ready as well, the race goes to the earlier of the list.
    const batch = await Promise.race([t.release.failed, coming]);
    if (batch === null) break;
    if (t.rewards && t.release.refusals >= t.config.rlRollbackRefusals) await rollBack(t, t.rewards);
    const step = t.progress.step + 1;
    const groups = groupsFor(t, step, batch);
    if (!batch.replayed) await t.journal.append(manifestOf(t, step, batch.drawn, groups));

    const training =
      batch.encoded === null
        ? null
        : t.learner.step(
            batch.encoded,
            groups.map((waiting) => waiting.group),
            rlShare(t.progress, step, t.config.rlRampSteps),
          );
    coming = nextBatch(t); // fetched, decoded and encoded while the worker trains
    coming.catch(() => {}); // awaited in the next round; until then its failure is not unhandled
    const outcome = await training;

    const rules = { spikeFactor: t.config.lossSpikeFactor, graceSteps: t.config.lossGuardGraceSteps };
    const full = batch.drawn.samples.length === t.learner.batchSize;
    const guard = outcome ? guardLoss(t.progress.guard, step, outcome, rules, full) : t.progress.guard;
    t.progress = {
      ...advance(t, step, batch.drawn, guard, outcome?.loss ?? null),
      ...(groups.length > 0 && { lastGroupStep: step }),
    };
    if (outcome) t.report.stepDone(t.progress, outcome, batch.drawn.samples);
    if (outcome && rules.spikeFactor > 0 && idleGuard.after(full))
      t.log.warn(
        { step, batchSize: t.learner.batchSize },
        'no batch is full: the loss guard looks for NaN alone, spikes are looked for in full batches. A smaller batchSize or a longer maxBatchWaitMs fills them',
      );

    // One moment for both, so that equal intervals share their checkpoints.
    const nowMs = t.clock.nowMs();
    const publish = !t.release.busy && due.publish(step, nowMs);
    if (publish || due.checkpoint(step, nowMs)) {
      const stored = await saveCheckpoint(t);
      savedStep = step;
      due.checkpointDone(step, nowMs);
      if (publish) {
        t.checkpoints.stepJudged = step;
        await t.release.begin(stored);
        due.publishDone(step, nowMs);
      }
    }
  }
  if (t.progress.step > savedStep) await saveCheckpoint(t);
  await t.release.settled();
}

interface Prepared {
  drawn: Drawn<FedSample>;
  /** null: none of its samples has a SID of this model's, and the step passes them. */
  encoded: unknown;
  /** The manifest that the batch repeats; null for a new one. */
  replayed: StepManifest | null;
}

/** Reward groups wait for a step that trains. */
function groupsFor(t: Training, step: number, { encoded, replayed }: Prepared) {
  if (!t.rewards || encoded === null) return [];
  return replayed ? t.rewards.takePlaces(replayed.groups) : t.rewards.takeFor(step);
}

/** The next batch in the model's tensors; null when the service stops. */
async function nextBatch(t: Training): Promise<Prepared | null> {
  const { samples, clock, stopping } = t;
  const replayed = t.replay.shift() ?? null;
  let fillingSinceMs: number | null = null;
  for (;;) {
    if (stopping.aborted) return null;
    const drawn = replayed ? drawAgain(samples, replayed) : samples.drawer.draw();
    const nowMs = clock.nowMs();
    if (samples.drawer.openSamples > 0) fillingSinceMs ??= nowMs;
    const waited = fillingSinceMs !== null && nowMs - fillingSinceMs >= t.config.maxBatchWaitMs;
    const batch = drawn ?? (waited && !replayed ? samples.drawer.drawPartial() : null);
    if (batch) {
      samples.madeRoom();
      await t.tables?.readToEnd();
      t.gate?.encodeWaiting();
      t.tables?.forgetBefore(oldestRequestMs(batch) - t.keepSidsMs);
      return { drawn: batch, encoded: t.learner.encode(batch.samples.map((s) => s.sample)), replayed };
    }
    await samples.news;
  }
}

const oldestRequestMs = ({ samples }: Drawn<FedSample>): number =>
  samples.reduce(
    (least, { sample }) => Math.min(least, sample.exposure.requestTimeMs),
    Number.POSITIVE_INFINITY,
  );

const drawAgain = ({ drawer }: SampleFeed, { ranges, cursor }: StepManifest): Drawn<FedSample> | null =>
  drawer.has(ranges) ? drawer.drawRange(ranges, cursor) : null;

function manifestOf(
  t: Training,
  step: number,
  { ranges, cursor, samples }: Drawn<FedSample>,
  groups: readonly { requestId: string; partition: number; offset: number }[],
): StepManifest {
  return {
    step,
    settings: t.settings,
    ranges,
    cursor,
    numSamples: samples.length,
    groups: groups.map(({ requestId, partition, offset }) => ({ requestId, partition, offset })),
    tableOffsets: tableOffsets(t),
  };
}

const tableOffsets = (t: Training): Record<string, number> =>
  Object.fromEntries(
    (t.tables?.positions() ?? []).map(({ topic, partition, offset }) => [`${topic}-${partition}`, offset]),
  );

/** Steps whose mean loss is reported as the loss at the beginning. */
const FIRST_STEPS = 10;

function advance(
  t: Training,
  step: number,
  { ranges, cursor, samples }: Drawn<FedSample>,
  guard: Progress['guard'],
  loss: number | null,
): Progress {
  const before = t.progress;
  const first = before.lossFirst ?? 0;
  return {
    ...before,
    step,
    samples: before.samples + samples.length,
    positions: ranges.map(({ partition, to }) => [partition, to]),
    cursor,
    guard,
    lossFirst: step <= FIRST_STEPS && loss !== null ? first + (loss - first) / step : before.lossFirst,
  };
}

/** Between two steps: the groups of the next one are not taken yet. */
async function saveCheckpoint(t: Training): Promise<StoredCheckpoint> {
  t.progress = {
    ...t.progress,
    rewardPositions: t.rewards?.positions() ?? [],
    usedRequestIds: t.rewards?.usedRequestIds() ?? [],
    tableOffsets: tableOffsets(t),
  };
  const stored = await t.checkpoints.save(
    { ...t.identity, progress: t.progress, createdMs: t.clock.nowMs() },
    await t.learner.save(),
  );
  await t.journal.forgetUpTo(await t.checkpoints.oldestStep());
  const { step, samples } = t.progress;
  t.log.info({ uri: stored.uri, step, samples, ...t.report.newest() }, 'checkpoint');
  return stored;
}

/**
 * Back to the checkpoint of the policy in use, without the reward groups read so far. The process ends with it: feeds, tables
 * and journal open anew at the offsets of that checkpoint.
 * @throws RolledBackError, unless that checkpoint is gone or no group was trained since: then training goes on as it is, unpublished
 */
async function rollBack(t: Training, rewards: RewardFeed): Promise<void> {
  const { refusals } = t.release;
  t.release.refusals = 0;
  const seen = { rewardPositions: rewards.readUpTo(), usedRequestIds: rewards.usedRequestIds() };
  const { step } = t.progress;
  if (!learnedFromRewards(t.progress, t.checkpoints.stepInUse)) {
    t.log.error(
      { step, refusals, stepInUse: t.checkpoints.stepInUse },
      `${refusals} policies in a row were refused, and no reward group was trained since the policy in use: next-token training alone made them, so going back would only repeat it. Training goes on unpublished until a policy passes. Look at what it learns from (left_out_*, learning_rate, the loss).`,
    );
    return;
  }
  const back = await t.checkpoints.rollBack((accepted) => progressAfterRollback(accepted, t.progress, seen));
  if (!back) {
    t.log.error({ step, refusals }, 'nothing to roll back to: the checkpoint of the policy in use is gone');
    return;
  }
  throw new RolledBackError(
    `${refusals} policies in a row were refused: training goes back from step ${step} to ${back.step}, the policy in use. Reward groups up to now are skipped, and L_RL begins anew with weight 0. Look at the ranker (reward-batches, its AUC) before raising rlWeight.`,
  );
}

/** Steps or time, whichever comes first, since it was last done. */
function dueTimes({ config, clock, progress }: Training) {
  const interval = (everySteps: number, everyMs: number) => {
    let last = { step: progress.step, atMs: clock.nowMs() };
    return {
      due: (step: number, nowMs: number) => step - last.step >= everySteps || nowMs - last.atMs >= everyMs,
      done: (step: number, nowMs: number) => {
        last = { step, atMs: nowMs };
      },
    };
  };
  const checkpoint = interval(config.checkpointEverySteps, config.checkpointEveryMs);
  const publish = interval(config.publishEverySteps, config.publishEveryMs);
  return {
    checkpoint: checkpoint.due,
    checkpointDone: checkpoint.done,
    publish: publish.due,
    publishDone: publish.done,
  };
}
