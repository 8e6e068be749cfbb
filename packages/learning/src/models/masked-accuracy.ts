/**
 * The figure beside the accuracy over all codes: does the target's code score best among those that go on to a SID that exists, after
 * the target's own codes before it? A beam chooses among these alone. Each sample brings them as lists; a mask over all codes would
 * be V numbers a sample and level to make, to feed and to add.
 */
import type { SidLayout } from '@onemall/features';
import type { Arrays } from '../engine/ort-sessions.ts';
import type { Ops } from '../ops.ts';
import { BatchError, type RetrievalSample } from '../trainer-ports.ts';

const LEVELS = [0, 1, 2] as const;

/** Children that one code can have: the codes of the next level in the scenario that has most. */
const mostChildren = ({ scenarios, numCodes }: SidLayout, level: 0 | 1 | 2): number =>
  Math.max(...scenarios.map((name) => numCodes[name]![level]));

/**
 * How many children score above the target. Input: sample.children<level + 1> int32 [B, C], places in `scores` read row after row.
 * @param scores [B, V] of all codes @param own [B] of the target's code
 * @returns [B]; 0: the target is the best of them
 */
export function betterChildren<T>(ops: Ops<T>, layout: SidLayout, level: 0 | 1 | 2, scores: T, own: T): T {
  const [rows, codes] = ops.shape(scores) as [number, number];
  const most = mostChildren(layout, level);
  const places = ops.input(`sample.children${level + 1}`, [rows, most], 'int32');
  const ofChildren = ops.reshape(ops.gather(ops.reshape(scores, [rows * codes, 1]), places), [rows, most]);
  return ops.sum(ops.less(ops.reshape(own, [rows, 1]), ofChildren), [1]);
}

/** The inputs of `betterChildren`: what a list leaves free names the target itself, which is no better than it. @throws BatchError */
export function childrenFeeds(
  samples: readonly RetrievalSample[],
  layout: SidLayout,
  batchSize: number,
): Arrays {
  const feeds = LEVELS.map((level) => {
    const most = mostChildren(layout, level);
    const places = new Int32Array(batchSize * most);
    samples.forEach(({ target, children }, row) => {
      const { scenario } = target;
      const first = row * layout.rows[level] + layout.offsets.get(scenario)![level];
      const own = [target.c1, target.c2, target.c3][level]!;
      places.fill(first + own, row * most, (row + 1) * most);
      if (!children) return;
      const { codes } = children[level];
      const numCodes = layout.numCodes[scenario]![level];
      if (codes.length > numCodes)
        throw new BatchError(
          `A sample has ${codes.length} children at level ${level + 1}, ${scenario} has ${numCodes} codes there`,
        );
      codes.forEach((code, i) => {
        if (!(code >= 0 && code < numCodes))
          throw new BatchError(
            `A child at level ${level + 1} of ${scenario} has code ${code}, expected 0 to ${numCodes - 1}`,
          );
        places[row * most + i] = first + code;
      });
    });
    return [`sample.children${level + 1}`, places] as const;
  });
  return Object.fromEntries(feeds);
}
