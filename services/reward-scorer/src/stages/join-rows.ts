/** Several groups in one call of the ranker. */
import { NUM_DENSE, NUM_IDS } from '@onemall/features';
import type { RankerRows } from './score-candidates.ts';

/** Groups in order, as few batches as hold at most maxRows rows each; a larger group is a batch of its own. */
export function splitByRows<G extends Pick<RankerRows, 'numRows'>>(
  groups: readonly G[],
  maxRows: number,
): G[][] {
  const batches: G[][] = [];
  let rows = 0;
  for (const group of groups) {
    const last = batches.at(-1);
    if (last && rows + group.numRows <= maxRows) {
      last.push(group);
      rows += group.numRows;
    } else {
      batches.push([group]);
      rows = group.numRows;
    }
  }
  return batches;
}

export interface JoinedRows {
  numRows: number;
  /** First row of each group. */
  starts: number[];
  /** float32 [numRows, NUM_DENSE] */
  dense: Float32Array;
  /** int32 [numRows, NUM_IDS] */
  ids: Int32Array;
}

const pick = ({ numRows, dense, ids }: Pick<RankerRows, 'numRows' | 'dense' | 'ids'>) => ({
  numRows,
  dense,
  ids,
});

/** The arrays of a single group are taken as they are. */
export function joinRows(groups: readonly Pick<RankerRows, 'numRows' | 'dense' | 'ids'>[]): JoinedRows {
  const [only] = groups;
  if (only && groups.length === 1) return { ...pick(only), starts: [0] };
  const numRows = groups.reduce((sum, g) => sum + g.numRows, 0);
  const dense = new Float32Array(numRows * NUM_DENSE);
  const ids = new Int32Array(numRows * NUM_IDS);
  const starts: number[] = [];
  let row = 0;
  for (const group of groups) {
    starts.push(row);
    dense.set(group.dense, row * NUM_DENSE);
    ids.set(group.ids, row * NUM_IDS);
    row += group.numRows;
  }
  return { numRows, starts, dense, ids };
}
