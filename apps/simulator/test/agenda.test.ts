import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Agenda } from '../src/world/agenda.ts';

test('entries leave by time, equal times in the order of being added, also when adding and taking alternate', () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.integer({ min: 0, max: 20 })), { maxLength: 200 }), (steps) => {
      const agenda = new Agenda<number>();
      const model: { at: number; order: number }[] = [];
      steps.forEach((at, order) => {
        if (at !== null) {
          agenda.add(at, order);
          model.push({ at, order });
          return;
        }
        model.sort((a, b) => a.at - b.at || a.order - b.order);
        const expected = model.shift();
        if (expected) {
          assert.equal(agenda.nextAt, expected.at);
          assert.equal(agenda.take(), expected.order);
        } else assert.throws(() => agenda.take(), /empty/);
      });
      assert.equal(agenda.size, model.length);
    }),
    { seed: 5 },
  );
});
