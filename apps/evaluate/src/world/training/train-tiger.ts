/**
 * TIGER's form (Rajput et al. 2023) on the world's log: three residual k-means levels of content and a number that tells the items
 * of a SID apart, a plain softmax over all codes, no contrast; its own tokenizer, on the engine and the clicks that OneMall has. Like
 * SASRec it reads clicks in their order and no more.
 */
import path from 'node:path';
import { RunFolder } from '../../sequences/adapters/run-folder.ts';
import { GeneratorRun } from '../../sequences/models/generator-run.ts';
import { TIGER } from '../../sequences/models/recipes.ts';
import { makeTokenizer } from '../../sequences/models/tokens.ts';
import { LENGTH } from '../../sequences/shapes.ts';
import { contents, TigerBeams } from '../lists/tiger-lists.ts';
import type { WorldLog } from '../log/world-log.ts';
import { clickSequences } from '../samples/click-sequences.ts';
import type { ItemVectors } from '../samples/semantic-ids.ts';
import { writeCurve } from './loss-curve.ts';
import type { SequenceRun } from './train-sasrec.ts';

/** A request is asked alone. */
const BUCKETS = [{ length: LENGTH, rows: 1 }] as const;

/** Trains, or goes on with, TIGER's form on the clicks of these rows. @param depth longest list that is asked for */
export async function trainTiger(
  log: WorldLog,
  vectors: ItemVectors,
  positives: Int32Array,
  depth: number,
  { folder, seed, engine, print }: SequenceRun,
): Promise<TigerBeams> {
  const set = clickSequences(log, positives);
  const tokenizer = await makeTokenizer(contents(vectors, 0, set.numItems), TIGER.tokenForm, seed);
  const { tokens } = tokenizer;
  print(
    `tiger: codes ${tokens.numCodes.join(' x ')}, ${(100 * tokens.conflict).toFixed(1)} % of the items share a SID`,
  );
  const run = await GeneratorRun.start(
    set,
    seed,
    { ...TIGER, beam: depth },
    { tokens, ...(engine && { engine }) },
    BUCKETS,
  );
  const { epochs } = await run.train(new RunFolder(path.join(folder, 'tiger')), (line, passing) => {
    if (!passing) print(`tiger: ${line}`);
  });
  const points = epochs.map(({ epoch, losses }) => [epoch, losses.loss!] as const);
  writeCurve(folder, { name: 'tiger', points });
  return new TigerBeams(log, vectors, run, tokenizer, set.numItems);
}
