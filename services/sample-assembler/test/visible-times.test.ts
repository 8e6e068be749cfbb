/** When table rows were visible: by transaction markers, against a walk over the log that asks at each moment. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { visibleTimes } from '../oracle/visible-times.ts';

const NEVER = Number.MAX_SAFE_INTEGER;

describe('a row is visible', () => {
  test('when its transaction ends, not when it was stamped', () => {
    const records = [{ offset: 0, timestampMs: 100, producerId: 7 }];
    assert.deepEqual(visibleTimes(records, [{ producerId: 7, offset: 1, timestampMs: 9_000 }]), [9_000]);
    assert.deepEqual(visibleTimes(records, []), [NEVER]);
  });

  test('no earlier than what was open before it', () => {
    const records = [
      { offset: 0, timestampMs: 100, producerId: 1 },
      { offset: 1, timestampMs: 110, producerId: 2 },
      { offset: 4, timestampMs: 400, producerId: 2 },
    ];
    const ends = [
      { producerId: 2, offset: 2, timestampMs: 120 },
      { producerId: 1, offset: 3, timestampMs: 300 },
      { producerId: 2, offset: 5, timestampMs: 500 },
    ];
    assert.deepEqual(visibleTimes(records, ends), [300, 300, 500]);
  });

  test('an aborted transaction may have begun right after the end before it', () => {
    const records = [
      { offset: 0, timestampMs: 10, producerId: 2 },
      { offset: 3, timestampMs: 20, producerId: 2 },
    ];
    const ends = [
      { producerId: 2, offset: 1, timestampMs: 15 },
      { producerId: 1, offset: 2, timestampMs: 18 },
      { producerId: 2, offset: 4, timestampMs: 30 },
      { producerId: 1, offset: 6, timestampMs: 60 },
    ];
    assert.deepEqual(visibleTimes(records, ends), [18, 60]);
  });

  test('some seconds after it was stamped where there is no transaction', () => {
    const [visible] = visibleTimes([{ offset: 0, timestampMs: 100, producerId: -1 }], []);
    assert.ok(visible! > 100 && visible! < 60_000);
  });
});

test('any log: as a reader would see it that looks at the last stable offset after each append', () => {
  const step = fc.record({ producerId: fc.integer({ min: 1, max: 3 }), ends: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const records: { offset: number; timestampMs: number; producerId: number }[] = [];
      const ends: { producerId: number; offset: number; timestampMs: number }[] = [];
      const firstOpen = new Map<number, number>();
      const seenAt = new Map<number, number>();
      let offset = 0;
      for (const { producerId, ends: isEnd } of steps) {
        // an end without a record is left out here: what it may have held up is a bound, not a time
        if (isEnd && !firstOpen.has(producerId)) continue;
        const timestampMs = 10 * offset;
        if (isEnd) {
          ends.push({ producerId, offset, timestampMs });
          firstOpen.delete(producerId);
        } else {
          records.push({ producerId, offset, timestampMs });
          if (!firstOpen.has(producerId)) firstOpen.set(producerId, offset);
        }
        offset++;
        const lastStable = Math.min(offset, ...firstOpen.values());
        for (const record of records)
          if (record.offset < lastStable && !seenAt.has(record.offset))
            seenAt.set(record.offset, timestampMs);
      }
      assert.deepEqual(
        visibleTimes(records, ends),
        records.map((record) => seenAt.get(record.offset) ?? NEVER),
      );
    }),
    { seed: 3, numRuns: 300 },
  );
});
