/**
 * The figure beside the accuracy over all codes: does the target's code score best among those that go on to a SID that exists, after
 * the target's own codes before it? A beam chooses among these alone.
 *
 * At the first level they are the same for all samples of a scenario: one mask. Behind a code they are some dozens of thousands, so
 * each sample brings a list; masks for these would be V numbers a sample and level to make, to feed and to add.
 */
import type { SidLayout } from '@onemall/features';
import type { Arrays } from '../engine/ort-sessions.ts';
import type { Ops } from '../ops.ts';
import { BatchError, type RetrievalSample, type SidChildren } from '../trainer-ports.ts';

type Level = 0 | 1 | 2;
/** Added to the score of a first code that no SID has; float32 holds it exactly. */
const NO_SID = -1_000_000_000;
/** Longer lists cost more of a step than the figure is worth: a sample with one is not counted. */
const LONGEST_LIST = 512;

/** Room for the children that one code can have. */
const listLength = ({ scenarios, numCodes }: SidLayout, level: Level): number =>
  Math.min(LONGEST_LIST, Math.max(...scenarios.map((name) => numCodes[name]![level])));

/** Whether a sample with these counts. */
export const countsMasked = (children: SidChildren | undefined): boolean =>
  children?.slice(1).every(({ codes }) => codes.length <= LONGEST_LIST) ?? false;

/** How many of a row's scores lie above the one given: an argmax costs three times as much. @param scores [B, n] @param own [B] @returns [B] */
export const countAbove = <T>(ops: Ops<T>, scores: T, own: T): T =>
  ops.sum(ops.less(ops.reshape(own, [ops.shape(own)[0]!, 1]), scores), [1]);

/**
 * How many codes that go on to a SID score above the target's. Inputs: sample.firstCodes [V_1], added to the scores of the first level;
 * sample.children2, sample.children3 int32 [B, C], places in `scores` read row after row.
 * @param scores [B, V] of all codes @param own [B] of the target's code
 * @returns [B]; 0: the target is the best of them
 */
export function betterChildren<T>(ops: Ops<T>, layout: SidLayout, level: Level, scores: T, own: T): T {
  const [rows, codes] = ops.shape(scores) as [number, number];
  if (level === 0) {
    const existing = ops.reshape(ops.input('sample.firstCodes', [codes], 'float32'), [1, codes]);
    return countAbove(ops, ops.add(scores, existing), own);
  }
  const length = listLength(layout, level);
  const places = ops.input(`sample.children${level + 1}`, [rows, length], 'int32');
  const ofChildren = ops.reshape(ops.gather(ops.reshape(scores, [rows * codes, 1]), places), [rows, length]);
  return countAbove(ops, ofChildren, own);
}

/**
 * The inputs of `betterChildren`. The first codes of a scenario are taken from its first sample that brings children. What a list
 * leaves free names the target itself, which is no better than it.
 * @throws BatchError
 */
export function childrenFeeds(
  samples: readonly RetrievalSample[],
  layout: SidLayout,
  batchSize: number,
): Arrays {
  return {
    'sample.firstCodes': firstCodes(samples, layout),
    'sample.children2': childLists(samples, layout, batchSize, 1),
    'sample.children3': childLists(samples, layout, batchSize, 2),
  };
}

function firstCodes(samples: readonly RetrievalSample[], layout: SidLayout): Float32Array {
  const existing = new Float32Array(layout.rows[0]).fill(NO_SID);
  const seen = new Set<string>();
  for (const { target, children } of samples) {
    if (!children || seen.has(target.scenario)) continue;
    seen.add(target.scenario);
    for (const row of childRows(children, target.scenario, layout, 0)) existing[row] = 0;
  }
  return existing;
}

function childLists(
  samples: readonly RetrievalSample[],
  layout: SidLayout,
  batchSize: number,
  level: 1 | 2,
): Int32Array {
  const length = listLength(layout, level);
  const places = new Int32Array(batchSize * length);
  samples.forEach(({ target, children }, row) => {
    const first = row * layout.rows[level];
    const own = layout.offsets.get(target.scenario)![level] + [target.c1, target.c2, target.c3][level]!;
    places.fill(first + own, row * length, (row + 1) * length);
    if (!children || !countsMasked(children)) return;
    childRows(children, target.scenario, layout, level).forEach((child, i) => {
      places[row * length + i] = first + child;
    });
  });
  return places;
}

/** Global rows of the children at a level. @throws BatchError for codes that the scenario does not have */
export function childRows(
  children: SidChildren,
  scenario: string,
  layout: SidLayout,
  level: Level,
): Int32Array {
  const { codes } = children[level];
  const numCodes = layout.numCodes[scenario]![level];
  const offset = layout.offsets.get(scenario)![level];
  if (codes.length > numCodes)
    throw new BatchError(
      `A sample has ${codes.length} children at level ${level + 1}, ${scenario} has ${numCodes} codes there`,
    );
  return codes.map((code) => {
    if (code >= 0 && code < numCodes) return offset + code;
    throw new BatchError(
      `A child at level ${level + 1} of ${scenario} has code ${code}, expected 0 to ${numCodes - 1}`,
    );
  });
}
