import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { Item, TopicName, TrainingSample } from '@onemall/contracts';
import { readPairs } from '@onemall/quantization';
import { isHeldBack } from '@onemall/service-kit';
import { startTestStack } from '@onemall/testkit';
import { runningJobs } from './running-jobs.ts';
import { item, sample } from './samples.ts';

const TOPICS: TopicName[] = ['items', 'training-samples', 'item-embeddings', 'codebooks', 'dead-letters'];
const stack = await startTestStack({ redis: true });
after(() => stack.stop());
const skip =
  stack.redisUrl === null &&
  'jobs need Redis, and there is no redis-server here: apt-get install redis-server';

const MINUTE = 60_000;
const HELD_BACK = 0.2;
/** Request ids that take part, and one that is held back. */
const ids = Array.from({ length: 100 }, (_, n) => `r${n}`);
const open = ids.filter((id) => !isHeldBack(id, HELD_BACK));
const heldBack = ids.find((id) => isHeldBack(id, HELD_BACK))!;

const event = (userId: string, itemId: string, timeMs: number, watchMs: number | null): TrainingSample => {
  const made = sample(open.shift()!, 0, itemId, { clicked: watchMs === null });
  return { ...made, clickDelayMs: 0, exposure: { ...made.exposure, userId, eventTimeMs: timeMs, watchMs } };
};
const video = (itemId: string, category: string): Item => ({
  ...item(itemId),
  scenario: 'short_video',
  category,
});

test('collect-pairs makes the pairs of the log and says what each filter left', { skip }, async (t) => {
  const { writer, enqueue, artifacts, service } = await runningJobs(stack, t, TOPICS, {
    ONEMALL_HELD_BACK_FRACTION: String(HELD_BACK),
    ONEMALL_PAIRS_MIN_SIMILARITY: '0.9',
    ONEMALL_PAIRS_NEIGHBOURS: '1',
  });
  const nothing = await enqueue('collect-pairs');
  assert.equal(nothing.code, 1);
  assert.match(nothing.stderr, /No pairs: 0 users with clicks or views/);

  const items = [
    ...['a', 'b', 'c', 'd', 'e'].map((id) => item(id)),
    video('clip', 'Home'),
    video('fun', 'Dance'),
  ];
  const hidden = event('u1', 'd', 3_000, null);
  const result = async () => {
    const { code, stdout, stderr } = await enqueue('collect-pairs');
    assert.equal(code, 0, stderr + service.logTail());
    return JSON.parse(stdout.slice(stdout.indexOf('\n{'))) as {
      uri: string;
      sha256: string;
      numUsers: number;
      cutoffMs: number;
      watchingSkipped?: string;
      filters: Record<string, { before: number; after: number }[]>;
    };
  };
  const clicks = [
    event('u1', 'a', 1_000, null),
    event('u1', 'b', 2_000, null),
    event('u2', 'b', 1_000, null),
    event('u2', 'a', 2_000, null),
  ];
  const send = (samples: TrainingSample[]): Promise<unknown> =>
    writer.send(samples.map((value) => ({ topic: 'training-samples', key: value.exposure.userId, value })));
  await writer.send(items.map((value) => ({ topic: 'items' as const, key: value.itemId, value })));
  await send(clicks);
  const withoutViews = await result();
  assert.match(withoutViews.watchingSkipped!, /how long it was watched \(watchMs\)/);
  assert.equal(readPairs(await artifacts.get(withoutViews)).watching.length, 0);

  const samples = [
    { ...hidden, exposure: { ...hidden.exposure, requestId: heldBack } },
    { ...event('u2', 'c', 2_000, null), kind: 'CLICK' as const },
    event('u3', 'clip', MINUTE, 70_000),
    event('u3', 'c', 3 * MINUTE, null),
    event('u4', 'fun', MINUTE, 70_000),
    event('u4', 'c', 3 * MINUTE, null),
  ];
  const vectors: [string, number[]][] = [
    ['d', [1, 0]],
    ['e', [1, 0.1]],
    ['a', [0, 1]],
    ['gone', [0, 1]],
  ];
  await send(samples);
  await writer.send(
    vectors.map(([itemId, vector]) => ({
      topic: 'item-embeddings' as const,
      key: itemId,
      value: { itemId, scenario: 'product_card', vector, policyVersion: 'p1', createdMs: 1 },
    })),
  );
  const whole = await result();
  const { itemIds, commercial, watching } = readPairs(await artifacts.get(whole));
  const named = (pairs: Int32Array) =>
    Array.from({ length: pairs.length / 2 }, (_, i) =>
      [itemIds[pairs[2 * i]!], itemIds[pairs[2 * i + 1]!]].join(' '),
    ).sort();
  assert.deepEqual(named(commercial), ['a b', 'd e']);
  assert.deepEqual(named(watching), ['clip c']);
  assert.equal(whole.numUsers, 4);
  assert.equal(whole.cutoffMs, 3 * MINUTE);
  const counts = (of: string) => whole.filters[of]!.map(({ before, after }) => [before, after]);
  assert.deepEqual(counts('watching').slice(0, 3), [
    [2, 2],
    [6, 2],
    [2, 1],
  ]);
  assert.deepEqual(counts('swing')[0], [4, 2]);
  assert.deepEqual(counts('neighbours')[0], [2, 1]);
  assert.equal(whole.watchingSkipped, undefined);
});
