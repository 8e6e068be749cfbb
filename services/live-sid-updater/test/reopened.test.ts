/** What ends and comes back: a reader that ends SIDs at their tombstones finds the right one at every moment. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { vectorOf } from '@onemall/testkit';
import { item } from './items.ts';
import { codesAsOf, Updater } from './updater-without-broker.ts';

for (const restarts of [false, true]) {
  const when = restarts ? ' after a restart' : '';

  test(`a room that opens again${when} keeps its past, has none in between, and a SID from then on`, async () => {
    let updater = new Updater();
    const log = await updater.publishRoom('ADDED', 'p1', 1_000, 1_100);
    log.push(...(await updater.publishRoom('ROOM_ENDED', null, 2_000, 2_100)));
    const before = codesAsOf(log, 1_500);
    assert.ok(before);
    if (restarts) updater = new Updater(log);
    log.push(...(await updater.publishRoom('ADDED', 'p9', 3_000, 3_100)));
    assert.equal(log.length, 3);
    const after = codesAsOf(log, 3_000);
    assert.ok(after);
    assert.notDeepEqual(after, before);
    assert.deepEqual(
      [0, 2_099, 2_100, 2_999, 9_999].map((timeMs) => codesAsOf(log, timeMs)),
      [before, before, null, null, after],
    );
  });

  test(`an item that is sold again${when} keeps its past, has none in between, and a SID from then on`, async () => {
    let updater = new Updater();
    const log = await updater.publishItem('p1', 1_100);
    updater.state.takeItem({ key: 'p1', value: null, partition: 0, timestampMs: 2_000 }, 2_000);
    log.push(...(await updater.publishItem('p1', 2_100)));
    const before = codesAsOf(log, 1_500);
    assert.ok(before);
    if (restarts) updater = new Updater(log);
    const back = item('p1', { embedding: vectorOf(9), validFromMs: 3_000 });
    updater.state.takeItem({ key: 'p1', value: back, partition: 0, timestampMs: 3_000 }, 3_000);
    log.push(...(await updater.publishItem('p1', 3_100)));
    assert.equal(log.length, 3);
    const after = codesAsOf(log, 3_000);
    assert.ok(after);
    assert.notDeepEqual(after, before);
    assert.deepEqual(
      [0, 2_099, 2_100, 2_999, 9_999].map((timeMs) => codesAsOf(log, timeMs)),
      [before, before, null, null, after],
    );
  });
}

test('a room that opens again before its tombstone was written is valid after the tombstone', async () => {
  const updater = new Updater();
  const log = await updater.publishRoom('ADDED', 'p1', 1_000, 1_100);
  log.push(...(await updater.publishRoom('ROOM_ENDED', null, 2_000, 2_100)));
  log.push(...(await updater.publishRoom('ADDED', 'p9', 2_050, 2_150)));
  assert.equal(log.at(-1)!.value!.validFromMs, 2_101);
  assert.ok(codesAsOf(log, 9_999));
});
