/** Counts rows that cannot be used and names them in the log, the first ones in full. */
import type { Logger, StageMeter } from '@onemall/service-kit';
import type { RowError } from '../stages/map-row.ts';

const NAMED = 50;

export class BadRows {
  count = 0;
  readonly #log: Logger;
  readonly #meter: StageMeter;
  constructor(log: Logger, meter: StageMeter) {
    this.#log = log;
    this.#meter = meter;
    meter.set(
      'bad_rows',
      0,
      'Rows of the log left out because a column does not hold what the mapping expects',
    );
  }
  add({ file, row, error }: { file: string; row: number; error: RowError }): void {
    this.count++;
    this.#meter.set('bad_rows', this.count);
    if (this.count > NAMED) return;
    const value = typeof error.value === 'bigint' ? String(error.value) : error.value;
    const more = this.count === NAMED ? '; further bad rows are only counted' : '';
    this.#log.warn({ file, row, column: error.column, value }, `bad row: ${error.message}${more}`);
  }
}
