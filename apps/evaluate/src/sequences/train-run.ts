/**
 * One training run: epochs, validation, early stop, checkpoints.
 *   waits for: nothing; takes up a checkpoint of its folder where there is one, at the epoch after it
 *   leaves: run.checkpoint (after every epoch), best.checkpoint (weights of the best epoch)
 */
import type { Arrays, ModelTrainer } from '@onemall/learning/sequences';
import type { RunFolder } from './adapters/run-folder.ts';
import type { RankMetrics } from './stages/rank-metrics.ts';

export interface EpochRecord {
  epoch: number;
  /** Mean over the targets of the epoch, by part of the loss. */
  losses: Record<string, number>;
  /** Of the thread that computes and the one that prepares, user and system. */
  cpuSeconds: number;
  seconds: number;
  /** R@10 is what the best epoch is picked by. */
  validation?: RankMetrics;
  validationCpuSeconds?: number;
}

export interface RunProgress {
  epochs: EpochRecord[];
  best: { epoch: number; validation: RankMetrics };
  done: boolean;
}

/** Before any validation. */
export const NONE: RunProgress['best'] = {
  epoch: 0,
  validation: { 'R@5': -1, 'R@10': -1, 'N@5': -1, 'N@10': -1 },
};

/** By R@10, and by N@10 where that is equal. */
const isBetter = (a: RankMetrics, b: RankMetrics): boolean =>
  a['R@10'] > b['R@10'] || (a['R@10'] === b['R@10'] && a['N@10'] > b['N@10']);

export interface TrainingPlan<B extends { numTargets: number }> {
  trainer: ModelTrainer;
  epochs: number;
  /** Stops after so many validations without a better one. */
  patience: number;
  /** Epochs between validations; the last epoch is always validated. */
  validateEvery: number;
  /** The batches of an epoch, a function of the epoch alone. */
  batches: (epoch: number) => B[];
  feeds: (batch: B, epoch: number, index: number) => Arrays;
  learningRate: (step: number) => number;
  validate: () => Promise<RankMetrics>;
}

export type Report = (line: string, passing?: boolean) => void;

/** @returns the finished progress; the trainer then holds the weights of the best epoch */
export async function trainRun<B extends { numTargets: number }>(
  folder: RunFolder,
  plan: TrainingPlan<B>,
  report: Report,
): Promise<RunProgress> {
  const saved = folder.readCheckpoint<RunProgress>('run');
  const progress: RunProgress = saved?.progress ?? { epochs: [], best: NONE, done: false };
  if (saved) {
    await plan.trainer.restore(saved.state);
    if (!progress.done) report(`taken up after epoch ${progress.epochs.length}`);
  }
  while (!progress.done) {
    const epoch = progress.epochs.length + 1;
    const record = await trainEpoch(epoch, plan, report);
    progress.epochs.push(record);
    const last = epoch === plan.epochs;
    if (last || epoch % plan.validateEvery === 0) {
      report('validates', true);
      const cpu = process.cpuUsage();
      record.validation = await plan.validate();
      const used = process.cpuUsage(cpu);
      record.validationCpuSeconds = (used.user + used.system) / 1e6;
      if (isBetter(record.validation, progress.best.validation)) {
        progress.best = { epoch, validation: record.validation };
        folder.writeCheckpoint('best', { state: await plan.trainer.state(), progress: { epoch } });
      }
    }
    const withoutBetter = (epoch - progress.best.epoch) / plan.validateEvery;
    progress.done = last || (record.validation !== undefined && withoutBetter >= plan.patience);
    folder.writeCheckpoint('run', { state: await plan.trainer.state(), progress });
    report(describe(record));
  }
  const best = folder.readCheckpoint('best');
  if (!best)
    throw new Error(`${folder.folder}: best.checkpoint is gone; remove the folder to train this run anew`);
  await plan.trainer.restore(best.state);
  return progress;
}

async function trainEpoch<B extends { numTargets: number }>(
  epoch: number,
  plan: TrainingPlan<B>,
  report: Report,
): Promise<EpochRecord> {
  const started = performance.now();
  const cpu = process.cpuUsage();
  const batches = plan.batches(epoch);
  const sums: Record<string, number> = {};
  let targets = 0;
  for (const [index, batch] of batches.entries()) {
    const { trainer } = plan;
    const metrics = await trainer.train(plan.feeds(batch, epoch, index), plan.learningRate(trainer.step));
    for (const [name, value] of Object.entries(metrics))
      if (value.length === 1) sums[name] = (sums[name] ?? 0) + value[0]! * batch.numTargets;
    targets += batch.numTargets;
    report(
      `epoch ${epoch}, step ${index + 1} of ${batches.length}, loss ${(sums.loss! / targets).toFixed(4)}`,
      true,
    );
  }
  const used = process.cpuUsage(cpu);
  return {
    epoch,
    losses: Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / targets])),
    cpuSeconds: (used.user + used.system) / 1e6,
    seconds: (performance.now() - started) / 1000,
  };
}

function describe({ epoch, losses, validation, cpuSeconds, validationCpuSeconds = 0 }: EpochRecord): string {
  const parts = Object.entries(losses).map(([name, value]) => `${name} ${value.toFixed(4)}`);
  const scores = validation
    ? `; validation ${Object.entries(validation)
        .map(([name, value]) => `${name} ${value.toFixed(4)}`)
        .join(' ')}`
    : '';
  return `epoch ${epoch}: ${parts.join(', ')}${scores} (${cpuSeconds.toFixed(1)} + ${validationCpuSeconds.toFixed(1)} s of CPU)`;
}
