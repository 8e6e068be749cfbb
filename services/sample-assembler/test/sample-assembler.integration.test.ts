/** The service as processes on a real broker, judged by the oracle. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import { RETENTION, Scene, TOPICS_USED } from './scene.ts';
import { makeTraffic } from './traffic.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

const numExposures = (arrivals: ReturnType<typeof makeTraffic>): number =>
  new Set(arrivals.map((a) => (a.topic === 'exposures' ? a.value.exposureId : ''))).size - 1;

test('invariants 2, 3, 5 and 7: killed twice at random moments, every sample is there once and equal', async () => {
  const scene = await Scene.create(stack);
  try {
    const random = new SeededRandom(7);
    const startMs = Date.now() - 60_000;
    const arrivals = makeTraffic({ seed: 7, numRequests: 1_500, startMs, lateShare: 0.01 });
    await scene.sendCatalogue(startMs);
    // Of a few users: the others' histories go to disk, and through snapshots to the next instance.
    const littleCache = { ONEMALL_HISTORY_CACHE_MB: '0.01' };
    let instance = await scene.startInstance(littleCache);
    await instance.ready();
    const kills = [0, 1]
      .map(() => Math.floor(arrivals.length * (0.2 + 0.5 * random.next())))
      .sort((a, b) => a - b);
    await scene.sendTraffic(arrivals, 200, async (sent) => {
      if (kills.length === 0 || sent < kills[0]!) return;
      kills.shift();
      // At work, and with something committed that a restart must not repeat.
      await waitFor(async () => (await instance.status()).out > 0, {
        what: 'samples before the kill',
        timeoutMs: 30_000,
      });
      await instance.kill();
      instance = await scene.startInstance(littleCache);
    });
    await instance.ready();
    await scene.sendTraffic(makeTraffic({ seed: 8, numRequests: 1, startMs: Date.now() }));
    const verdict = await scene.judged(numExposures(arrivals) * 0.95);
    assert.deepEqual(verdict.firstDifferences, []);
    assert.equal(verdict.ok, true);
    assert.equal(verdict.fates.dead, 0);
    assert.equal(await instance.stop(), 0);
  } finally {
    await scene.close();
  }
});

test('invariant 12: bad input of every kind becomes a dead letter with its reason and the rest flows on', async () => {
  const scene = await Scene.create(stack);
  try {
    const startMs = Date.now() - 60_000;
    const arrivals = makeTraffic({ seed: 3, numRequests: 60, startMs, copyShare: 0 });
    const instance = await scene.startInstance();
    const exposure = arrivals.find((a) => a.topic === 'exposures')!.value;
    const buy = arrivals.find((a) => a.topic === 'buys')!.value;
    const click = arrivals.find((a) => a.topic === 'clicks')!.value;
    const bad = {
      NOT_WIRE_FORMAT: { topic: 'clicks', key: 'user-1', valueBytes: Buffer.from('poison') },
      UNKNOWN_SCHEMA: {
        topic: 'buys',
        key: 'user-1',
        valueBytes: Buffer.from([0, 0x7f, 0xff, 0xff, 0xff, 1, 2]),
      },
      UNKNOWN_SCENARIO: {
        topic: 'exposures',
        value: { ...exposure, exposureId: 'bad-1', scenario: 'radio' },
      },
      NOT_A_NUMBER: {
        topic: 'exposures',
        value: { ...exposure, exposureId: 'bad-2', requestFeatures: { ints: [], floats: [1, Number.NaN] } },
      },
      NEGATIVE_VALUE: { topic: 'buys', value: { ...buy, actionId: 'bad-3', priceCents: -1 } },
      EMPTY_ID: { topic: 'clicks', value: { ...click, actionId: '' } },
      TIME_OUT_OF_RANGE: {
        topic: 'clicks',
        value: { ...click, actionId: 'bad-4', eventTimeMs: Date.now() + 3_600_000 },
      },
      KEY_MISMATCH: { topic: 'clicks', key: 'someone-else', value: { ...click, actionId: 'bad-5' } },
    };
    const records = Object.values(bad).map((b) => ('value' in b ? { key: b.value.userId, ...b } : b));
    await scene.sendTraffic(arrivals.slice(0, 50));
    await scene.writer.send(records as never);
    await scene.sendTraffic(arrivals.slice(50));
    await scene.sendTraffic(makeTraffic({ seed: 4, numRequests: 1, startMs: Date.now() }));
    await waitFor(async () => (await scene.count('dead-letters')) >= records.length, {
      what: 'the dead letters',
      timeoutMs: 60_000,
    });
    const letters = await scene.read('dead-letters');
    assert.deepEqual(letters.map((letter) => letter.value!.reason).sort(), Object.keys(bad).sort());
    for (const letter of letters) {
      assert.equal(letter.value!.service, 'sample-assembler');
      assert.ok(letter.value!.detail.length > 10, letter.value!.detail);
      assert.ok(letter.value!.payload!.length > 0);
    }
    const verdict = await scene.judged(numExposures(arrivals) * 0.9);
    assert.deepEqual(verdict.firstDifferences, []);
    assert.equal(verdict.fates.dead + 2, records.length); // two of them do not even decode
    assert.equal((await instance.status()).deadLetters, records.length);
  } finally {
    await scene.close();
  }
});

test('unequal partition counts refuse the start and say what to do', async () => {
  const scene = await Scene.create(stack, { createTopics: false });
  try {
    await scene.io.createTopics(
      TOPICS_USED.filter((topic) => topic !== 'clicks'),
      { retention: RETENTION, numPartitions: 4 },
    );
    await scene.io.createTopics(['clicks'], { retention: RETENTION, numPartitions: 3 });
    const instance = await scene.startInstance();
    assert.equal((await instance.exited).code, 1);
    assert.match(instance.logTail(), /clicks/);
    assert.match(instance.logTail(), /partition/);
  } finally {
    await scene.close();
  }
});

test('samples without committed offsets refuse the start, and the flag accepts it', async () => {
  const scene = await Scene.create(stack);
  try {
    const first = await scene.startInstance();
    await first.ready();
    const arrivals = makeTraffic({ seed: 5, numRequests: 40, startMs: Date.now() - 30_000 });
    await scene.sendTraffic(arrivals);
    await waitFor(async () => (await first.status()).out > 0, { what: 'samples', timeoutMs: 30_000 });
    await first.stop();
    const [sample] = await scene.read('training-samples');
    // The same topics under another group: its offsets are not there.
    const other = await Scene.create(stack);
    try {
      await other.writer.send([{ topic: 'training-samples', key: sample!.key, value: sample!.value }]);
      const refused = await other.startInstance();
      assert.equal((await refused.exited).code, 1);
      assert.match(refused.logTail(), /no committed offsets for partition/);
      assert.match(refused.logTail(), /ONEMALL_ACCEPT_LOSS=missing-commits/);
      const accepted = await other.startInstance({ ONEMALL_ACCEPT_LOSS: 'missing-commits' });
      await accepted.ready();
      await waitFor(async () => (await accepted.status()).values.partitions_owned === 4, {
        what: 'four partitions',
        timeoutMs: 30_000,
      });
    } finally {
      await other.close();
    }
  } finally {
    await scene.close();
  }
});

test('invariant 1: two instances share the partitions, one leaves, and nothing is lost or doubled', async () => {
  const scene = await Scene.create(stack);
  try {
    const startMs = Date.now() - 60_000;
    const arrivals = makeTraffic({ seed: 11, numRequests: 900, startMs });
    await scene.sendCatalogue(startMs);
    const first = await scene.startInstance();
    await first.ready();
    await scene.sendTraffic(arrivals.slice(0, 1_000));
    const second = await scene.startInstance();
    const owned = async (i: typeof first): Promise<number> => (await i.status()).values.partitions_owned ?? 0;
    await waitFor(async () => (await owned(first)) === 2 && (await owned(second)) === 2, {
      what: 'two partitions each',
      timeoutMs: 60_000,
    });
    await scene.sendTraffic(arrivals.slice(1_000, 2_000));
    assert.equal(await first.stop(), 0);
    await waitFor(async () => (await owned(second)) === 4, { what: 'all partitions', timeoutMs: 60_000 });
    await scene.sendTraffic(arrivals.slice(2_000));
    await scene.sendTraffic(makeTraffic({ seed: 12, numRequests: 1, startMs: Date.now() }));
    const verdict = await scene.judged(numExposures(arrivals) * 0.95);
    assert.deepEqual(verdict.firstDifferences, []);
  } finally {
    await scene.close();
  }
});
