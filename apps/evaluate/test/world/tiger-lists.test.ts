import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TigerLists } from '../../src/world/lists/tiger-lists.ts';
import { Popularity } from '../../src/world/log/popularity.ts';
import { WorldLog } from '../../src/world/log/world-log.ts';
import { smallPlan } from './small-plan.ts';

test('what the beam found is ordered by log p, or by log p and log popularity', async () => {
  const log = new WorldLog(smallPlan());
  for (let request = 0; request < 100; request++) log.nextRequest();
  const popularity = new Popularity(log);
  popularity.follow(99);
  const cards = Array.from({ length: log.world.catalogue.numProducts }, (_, item) => item);
  const most = cards.reduce((a, b) => (popularity.of(b) > popularity.of(a) ? b : a));
  const [never, unseen] = cards.filter((item) => popularity.of(item) === 0) as [number, number];
  const times = 1 + popularity.of(most);
  assert.ok(times > 10);
  // the popular one is as likely as the first but for a little less than its popularity, the last for more
  const scores = [0, -Math.log(times - 1), -Math.log(times + 1) - 1];
  const beams = {
    of: async () => ({ items: Int32Array.of(never, most, unseen), scores: Float64Array.from(scores) }),
  };
  const asked = { request: 99, scenario: 'product_card', requestTimeMs: 0 } as const;
  assert.deepEqual([...(await new TigerLists('tiger', beams, null).rank(asked, 3))], [never, most, unseen]);
  assert.deepEqual(
    [...(await new TigerLists('tiger-popular', beams, popularity).rank(asked, 3))],
    [most, never, unseen],
  );
});
