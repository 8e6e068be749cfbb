/**
 * SASRec on the world's log, the dense baseline: one sequence of clicked items a user, all scenarios in it, on the engine and the
 * clicks that OneMall has. Its item rows begin as content embeddings, as OneMall's tables begin as the centroids of these. Of a user
 * it reads clicks in their order and no more; OneMall reads exposures and buys too, and when and where each was. What the first two
 * are worth `onemall-clicks` tells, which has neither.
 */
import path from 'node:path';
import type { EngineOptions } from '@onemall/learning';
import { RunFolder } from '../../sequences/adapters/run-folder.ts';
import { SASREC, SasrecRun } from '../../sequences/models/sasrec-run.ts';
import type { Report } from '../../sequences/train-run.ts';
import { contentRows, SasrecScores } from '../lists/sasrec-lists.ts';
import type { WorldLog } from '../log/world-log.ts';
import { clickSequences } from '../samples/click-sequences.ts';
import type { ItemVectors } from '../samples/semantic-ids.ts';
import { writeCurve } from './loss-curve.ts';

/** Where a baseline is trained. */
export interface SequenceRun {
  folder: string;
  seed: number;
  engine?: EngineOptions;
  print: (line: string) => void;
}

/** On the whole world an epoch takes 4 s of CPU and a validation, which ranks 405,000 items, 55 s. */
const VALIDATE_EVERY = 6;

/** Trains, or goes on with, SASRec on the clicks of these rows. */
export async function trainSasrec(
  log: WorldLog,
  vectors: ItemVectors,
  positives: Int32Array,
  { folder, seed, engine, print }: SequenceRun,
): Promise<SasrecScores> {
  const set = clickSequences(log, positives);
  const starts = contentRows(vectors, 0, set.numItems);
  const run = await SasrecRun.start(set, seed, { ...SASREC, dim: vectors.dim }, engine);
  await run.beginWithItems(starts);
  const report: Report = (line, passing) => {
    if (!passing) print(`sasrec: ${line}`);
  };
  const { epochs } = await run.train(new RunFolder(path.join(folder, 'sasrec')), report, VALIDATE_EVERY);
  const points = epochs.map(({ epoch, losses }) => [epoch, losses.loss!] as const);
  writeCurve(folder, { name: 'sasrec', points });
  return new SasrecScores(log, vectors, run, await run.itemVectors());
}
