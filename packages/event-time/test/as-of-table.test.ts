import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AsOfTable } from '../src/index.ts';

test('looks up the version valid at a time, whatever the order of arrival', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 50 }), fc.option(fc.integer()))),
      fc.integer({ min: -5, max: 60 }),
      (puts, at) => {
        const table = new AsOfTable<number>();
        for (const [time, value] of puts) table.put('k', time, value);
        const seen = puts.filter(([time]) => time <= at);
        const latest = Math.max(...seen.map(([time]) => time));
        const expected = seen.filter(([time]) => time === latest).at(-1)?.[1] ?? null;
        assert.equal(table.asOf('k', at), expected);
        table.forgetBefore(at);
        assert.equal(table.asOf('k', at), expected);
      },
    ),
    { seed: 1 },
  );
});
