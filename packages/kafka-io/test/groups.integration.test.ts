/** Conformance of groups on a real broker: who owns what, what is processed, and what becomes of bad records. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  type ConsumerHandler,
  type KafkaIo,
  type Membership,
  OffsetOutOfRangeError,
  type RunningConsumer,
  TopicRefusedError,
} from '../src/index.ts';
import { Bench, click, clickRecord, readToEnd, until } from './harness.ts';
import { API, loseAnswers } from './lost-answers.ts';

let bench: Bench;
before(async () => {
  bench = await Bench.start();
});
after(() => bench.stop());

const LOGS = ['exposures', 'clicks', 'buys'] as const;
const fail = (error: unknown) => assert.fail(String((error as Error).stack));

interface Owner {
  name: string;
  owned: Set<number>;
  membership: Membership;
}

describe('membership', () => {
  /** At every change of any member each partition has at most one owner that has not given it up. */
  const joiner = (io: KafkaIo, groupId: string) => {
    const owners: Owner[] = [];
    const moves: string[] = [];
    const join = async (name: string): Promise<Owner> => {
      const owner: Owner = { name, owned: new Set(), membership: { stop: async () => {} } };
      owners.push(owner);
      owner.membership = await io.joinGroup({
        groupId,
        topics: LOGS,
        sessionTimeoutMs: 6_000,
        onError: fail,
        onChange: async ({ assigned, revoked }) => {
          for (const p of revoked)
            assert.ok(owner.owned.delete(p), `${name} gives up ${p} without having it`);
          for (const p of assigned) {
            assert.ok(!owner.owned.has(p), `${name} gets ${p} twice`);
            owner.owned.add(p);
            moves.push(`${name}+${p}`);
          }
          for (const p of revoked) moves.push(`${name}-${p}`);
        },
      });
      return owner;
    };
    const leave = async (owner: Owner) => {
      owners.splice(owners.indexOf(owner), 1);
      await owner.membership.stop();
    };
    /** Every partition exactly once, evenly over the members there are. */
    const settled = (numPartitions: number) =>
      until(`${owners.map((o) => o.name)} to share ${numPartitions} partitions`, () => {
        const all = owners.flatMap((o) => [...o.owned]).sort((a, b) => a - b);
        const sizes = owners.map((o) => o.owned.size);
        return (
          all.join() === [...Array(numPartitions).keys()].join() &&
          Math.max(...sizes) - Math.min(...sizes) <= 1
        );
      });
    return { join, leave, settled, moves };
  };

  it('gives partition p of all topics to one member while members come and go, and moves few', async () => {
    const { io, namespace } = await bench.space([...LOGS], { numPartitions: 6 });
    const { join, leave, settled, moves } = joiner(io, `${namespace}.members`);
    const a = await join('a');
    await settled(6);
    const b = await join('b');
    await settled(6);
    assert.equal(moves.filter((m) => m.startsWith('a-')).length, 3, 'a gives up only what b needs');
    const c = await join('c');
    await settled(6);
    assert.equal(c.owned.size, 2);
    const kept = [...b.owned];
    await leave(a);
    await settled(6);
    assert.ok(
      kept.every((p) => b.owned.has(p)),
      'b keeps what it had',
    );
    await leave(b);
    await settled(6);
    assert.equal(c.owned.size, 6);
    await leave(c);
  });

  it('waits for what is under way before it lets partitions go', async () => {
    const { io, namespace } = await bench.space([...LOGS], { numPartitions: 2 });
    const groupId = `${namespace}.rebalancing`;
    const events: string[] = [];
    const owned = { first: new Set<number>(), second: new Set<number>() };
    const changes =
      (name: keyof typeof owned) =>
      async ({ assigned, revoked }: { assigned: readonly number[]; revoked: readonly number[] }) => {
        for (const p of revoked) owned[name].delete(p);
        for (const p of assigned) owned[name].add(p);
        events.push(`${name} has ${[...owned[name]].join()}`);
      };
    let commit: () => void = () => {};
    const committing = new Promise<void>((resolve) => {
      commit = resolve;
    });
    let asked: () => void = () => {};
    const wasAsked = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const first = await io.joinGroup({
      groupId,
      topics: LOGS,
      onError: fail,
      onRebalancing: async () => {
        asked();
        await committing;
        events.push('committed');
      },
      onChange: changes('first'),
    });
    await until('the first to own all', () => owned.first.size === 2);
    const second = await io.joinGroup({
      groupId,
      topics: LOGS,
      onError: fail,
      onChange: changes('second'),
    });
    await wasAsked;
    assert.deepEqual(events, ['first has 0,1'], 'nobody gets anything before the commit');
    commit();
    // On a slow machine the group may have to rebalance, and to commit, more than once.
    await until('each to own one', () => owned.first.size === 1 && owned.second.size === 1);
    assert.equal(events[1], 'committed');
    assert.deepEqual([...owned.first, ...owned.second].sort(), [0, 1]);
    await second.stop();
    await first.stop();
  });

  it('comes back where the group forgot a member and its first try to join anew is lost', async () => {
    const { io, namespace } = await bench.space([...LOGS], { numPartitions: 2 });
    const groupId = `${namespace}.forgotten`;
    const { join, leave, settled } = joiner(io, groupId);
    const member = await join('a');
    await settled(2);
    const members = async () => (await bench.admin.describeGroups([groupId])).groups[0]!.members;
    const [first] = await members();
    const lost = loseAnswers(API.joinGroup, { count: 1, carriedOut: false });
    await bench.expel(groupId, first!.memberId);
    await until('the member to be back under a new id', async () => {
      const now = await members();
      return now.length === 1 && now[0]!.memberId !== first!.memberId;
    });
    lost.restore();
    assert.equal(lost.hits(), 1);
    await settled(2);
    await leave(member);
  });

  it('is refused for topics with unequal partition counts', async () => {
    const { io, namespace } = await bench.space(['exposures', 'clicks'], { numPartitions: 2 });
    await bench.admin.createTopics({ topics: [{ topic: `${namespace}.buys`, numPartitions: 3 }] });
    await assert.rejects(
      io.joinGroup({ groupId: 'g', topics: LOGS, onError: fail, onChange: async () => {} }),
      (error) => {
        assert.ok(error instanceof TopicRefusedError);
        assert.match(error.message, /exposures 2, .*clicks 2, .*buys 3/);
        return true;
      },
    );
  });
});

describe('a consumer', () => {
  const collecting = () => {
    const seen: string[] = [];
    const handler: ConsumerHandler<'clicks'> = {
      onRecords: async (records) => {
        for (const r of records) seen.push(r.value!.actionId);
      },
    };
    return { seen, handler };
  };
  const ids = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `a${from + i}`);
  const sorted = (list: string[]) => list.toSorted((a, b) => Number(a.slice(1)) - Number(b.slice(1)));

  it('goes on from where its group stopped, each record once over a clean restart', async () => {
    const { io, namespace } = await bench.space(['clicks'], { numPartitions: 3 });
    const writer = await io.openWriter();
    const { seen, handler } = collecting();
    for (const [from, to] of [
      [0, 500],
      [500, 700],
    ] as const) {
      await writer.send(Array.from({ length: to - from }, (_, i) => clickRecord(from + i)));
      const consumer = await io.consume({
        groupId: `${namespace}.g`,
        topics: ['clicks'],
        from: 'earliest',
        handler,
        onError: fail,
      });
      await until('all records', () => seen.length >= to);
      await consumer.stop();
      assert.deepEqual(sorted(seen), ids(0, to));
    }
  });

  it('shares partitions with a second one, and together they see everything', async () => {
    const { io, namespace } = await bench.space(['clicks'], { numPartitions: 4 });
    const writer = await io.openWriter();
    const one = collecting();
    const two = collecting();
    const start = (handler: ConsumerHandler<'clicks'>) =>
      io.consume({
        groupId: `${namespace}.g`,
        topics: ['clicks'],
        from: 'earliest',
        sessionTimeoutMs: 6_000,
        handler,
        onError: fail,
      });
    const first = await start(one.handler);
    await writer.send(Array.from({ length: 100 }, (_, i) => clickRecord(i)));
    await until('the first to see all', () => one.seen.length >= 100);
    const second = await start(two.handler);
    let next = 100;
    await until('the second to take part', async () => {
      await writer.send(Array.from({ length: 20 }, () => clickRecord(next++)));
      return two.seen.length > 0;
    });
    await first.stop();
    await writer.send(Array.from({ length: 50 }, () => clickRecord(next++)));
    await until('everything', () => new Set([...one.seen, ...two.seen]).size === next);
    await until('no lag', async () => (await second.lag()) === 0);
    await second.stop();
  });

  it('sends poison to dead-letters with the reason, the bytes and the coordinates; the rest flows on', async () => {
    const { io, namespace } = await bench.space(['clicks', 'dead-letters'], {
      validation: { scenarios: new Set(['product_card']), allowedClockSkewMs: 60_000 },
    });
    const writer = await io.openWriter();
    const good = await io.encode('clicks', click(1, 'u1'));
    const later = { ...click(7, 'u7'), eventTimeMs: Date.now() + 3_600_000 };
    const send = (key: string, valueBytes: Buffer | null) =>
      writer.send([{ topic: 'clicks', key, valueBytes }]);
    await send('u1', good);
    await send('u2', Buffer.from('poison'));
    await send('u3', Buffer.from([0, 0x7f, 0, 0, 1, 2]));
    await send('u4', good.subarray(0, good.length - 4));
    await send('u5', good);
    await send('u6', null);
    await writer.send([{ topic: 'clicks', key: 'u7', value: later }]);
    await writer.send([clickRecord(8)]);
    const { seen, handler } = collecting();
    const reasons: string[] = [];
    const consumer = await io.consume({
      groupId: `${namespace}.g`,
      topics: ['clicks'],
      from: 'earliest',
      handler,
      onError: fail,
      onDeadLetter: (reason) => reasons.push(reason),
    });
    await until('the last good record', () => seen.includes('a8'));
    await consumer.stop();
    assert.deepEqual(seen, ['a1', 'a8']);
    const expected = [
      'NOT_WIRE_FORMAT',
      'UNKNOWN_SCHEMA',
      'UNDECODABLE',
      'KEY_MISMATCH',
      'NOT_WIRE_FORMAT',
      'TIME_OUT_OF_RANGE',
    ];
    assert.deepEqual(reasons, expected);
    const letters = await Promise.all(
      (await readToEnd(await io.openReader(), io, 'dead-letters')).map((r) => io.decode('dead-letters', r)),
    );
    assert.deepEqual(
      letters.map((l) => [l.value!.reason, l.value!.offset, l.key]),
      expected.map((reason, i) => [reason, i + 1, `u${i + 2}`]),
    );
    const [poison, unknown] = letters;
    assert.deepEqual(poison!.value!.payload, Buffer.from('poison'));
    assert.equal(poison!.value!.topic, 'clicks');
    assert.equal(poison!.value!.service, 'conformance');
    assert.match(
      poison!.value!.detail,
      /Expected Confluent wire format .* got 6 bytes beginning 0x706f69736f/,
    );
    assert.match(unknown!.value!.detail, /got 2130706433/);
    assert.equal((await io.committed(`${namespace}.g`, [{ topic: 'clicks', partition: 0 }]))[0]!.offset, 8);
  });

  it('has no lag at a tail of control records, and commits past it', async () => {
    const { io, namespace, physical } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    await writer.send([clickRecord(1)]);
    const { seen, handler } = collecting();
    const groupId = `${namespace}.g`;
    const consumer = await io.consume({
      groupId,
      topics: ['clicks'],
      from: 'earliest',
      handler,
      onError: fail,
    });
    await until('the record', () => seen.length === 1);
    const producer = await bench.producer({ transactionalId: `${namespace}-t` });
    const t = await producer.transaction();
    await t.send({ topic: physical('clicks'), messages: [{ partition: 0, key: 'k', value: 'x' }] });
    assert.equal(await consumer.lag(), 1, 'an open transaction is behind, not yet read');
    await t.abort();
    await until('no lag', async () => (await consumer.lag()) === 0);
    await until(
      'the commit',
      async () => (await io.committed(groupId, [{ topic: 'clicks', partition: 0 }]))[0]!.offset === 3,
    );
    await consumer.stop();
    assert.deepEqual(seen, ['a1']);
  });

  it('stops with an error where its committed offset is no longer in the log', async () => {
    const { io, namespace, physical } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    const groupId = `${namespace}.g`;
    const { seen, handler } = collecting();
    const options = { groupId, topics: ['clicks'], from: 'earliest', handler } as const;
    await writer.send([clickRecord(0), clickRecord(1), clickRecord(2)]);
    const consumer = await io.consume({ ...options, onError: fail });
    await until('the records', () => seen.length === 3);
    await consumer.stop();
    await writer.send([clickRecord(3), clickRecord(4)]);
    await bench.admin.fetchTopicOffsets(physical('clicks'));
    await bench.admin.deleteTopicRecords({
      topic: physical('clicks'),
      partitions: [{ partition: 0, offset: '4' }],
    });
    const errors: unknown[] = [];
    const again = await io.consume({ ...options, onError: (error) => errors.push(error) });
    await until('the error', () => errors.length > 0);
    await again.stop();
    assert.ok(errors[0] instanceof OffsetOutOfRangeError);
    assert.equal(seen.length, 3, 'nothing was skipped silently');
  });

  it('whose handler throws ends with that error and does not commit the records', async () => {
    const { io, namespace } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    await writer.send([clickRecord(1)]);
    const groupId = `${namespace}.g`;
    const errors: unknown[] = [];
    const broken = await io.consume({
      groupId,
      topics: ['clicks'],
      from: 'earliest',
      onError: (error) => errors.push(error),
      handler: {
        onRecords: async () => {
          throw new Error('ClickHouse is broken');
        },
      },
    });
    await until('the error', () => errors.length > 0);
    await broken.stop();
    assert.match(String(errors[0]), /ClickHouse is broken/);
    const { seen, handler } = collecting();
    const mended = await io.consume({
      groupId,
      topics: ['clicks'],
      from: 'earliest',
      handler,
      onError: fail,
    });
    await until('the record again', () => seen.length === 1);
    await mended.stop();
  });

  it("from 'latest' begins at the end and misses nothing written after, over a restart", async () => {
    const { io, namespace } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    await writer.send([clickRecord(0)]);
    const { seen, handler } = collecting();
    const start = async (): Promise<RunningConsumer> => {
      let ready = false;
      const consumer = await io.consume({
        groupId: `${namespace}.g`,
        topics: ['clicks'],
        from: 'latest',
        onError: fail,
        handler: {
          ...handler,
          onAssigned: async () => {
            ready = true;
          },
        },
      });
      await until('the assignment', () => ready);
      return consumer;
    };
    await (await start()).stop();
    await writer.send([clickRecord(1)]);
    const again = await start();
    await until('the record written in between', () => seen.length === 1);
    await again.stop();
    assert.deepEqual(seen, ['a1']);
  });

  it('reads topics with different partition counts and tells of each before its records', async () => {
    const { io, namespace } = await bench.space(['clicks', 'policy-versions'], { numPartitions: 3 });
    const writer = await io.openWriter();
    await writer.send([clickRecord(1), { topic: 'policy-versions', key: 'RANKER', value: null }]);
    const events: string[] = [];
    const consumer = await io.consume({
      groupId: `${namespace}.g`,
      topics: ['clicks', 'policy-versions'],
      from: 'earliest',
      onError: fail,
      handler: {
        onAssigned: async (partitions) => {
          events.push(...partitions.map((p) => `+${p.topic}`));
        },
        onRecords: async (records) => {
          events.push(...records.map((r) => r.topic));
        },
      },
    });
    await until('both records', () => events.length === 6);
    await consumer.stop();
    assert.deepEqual(events.slice(0, 4).sort(), ['+clicks', '+clicks', '+clicks', '+policy-versions']);
    assert.deepEqual(events.slice(4).sort(), ['clicks', 'policy-versions']);
  });
});
