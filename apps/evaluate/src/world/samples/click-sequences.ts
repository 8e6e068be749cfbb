/** The world's log as user sequences, for the models that read those: one sequence of clicked items a user, all scenarios in it. */
import { LENGTH } from '../../sequences/shapes.ts';
import type { SequenceSet } from '../../sequences/stages/parse-sequences.ts';
import type { WorldLog } from '../log/world-log.ts';

/** Items are numbered as in the log, from 1. */
export function clickSequences(log: WorldLog, positives: Int32Array): SequenceSet {
  const { clickMs, item, request } = log.exposures;
  const byUser = new Map<number, number[]>();
  for (const row of positives) {
    const user = log.requests.user.at(request.at(row));
    const rows = byUser.get(user);
    if (rows) rows.push(row);
    else byUser.set(user, [row]);
  }
  for (const rows of byUser.values()) rows.sort((a, b) => clickMs.at(a) - clickMs.at(b) || a - b);
  const sequences = [...byUser.values()].map((rows) => Int32Array.from(rows, (row) => item.at(row) + 1));
  return {
    name: 'world',
    users: [...byUser.keys()].map(String),
    sequences,
    numItems: log.numItems,
    numInteractions: positives.length,
  };
}

/** The user's clicks before a request, oldest first; rooms that opened after the sequences were made are left out. */
export function clicksBefore(log: WorldLog, request: number, numItems: number): Int32Array {
  const { clicks } = log.historyBefore(request, LENGTH);
  return Int32Array.from(clicks, ({ itemId }) => log.itemNumber(itemId) + 1)
    .filter((item) => item <= numItems)
    .reverse();
}
