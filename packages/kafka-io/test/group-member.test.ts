/** A member whose group has no coordinator, against a consumer of kafkajs that breaks down as the real one does. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { Kafka } from 'kafkajs';
import { type GroupMember, joinGroup } from '../src/group-member.ts';
import { LogWriter } from '../src/log-writer.ts';

class CoordinatorNotFound extends Error {
  override name = 'KafkaJSGroupCoordinatorNotFound';
}

type Crash = (event: { payload: { error: Error; restart: boolean } }) => void;

/** Breaks down at its first joins with these errors, then stays. */
class FakeConsumer {
  readonly events = { GROUP_JOIN: 'join', HEARTBEAT: 'heartbeat', CRASH: 'crash' };
  joins = 0;
  onJoined: () => void = () => {};
  readonly #failures: Error[];
  #crash: Crash = () => {};
  constructor(failures: Error[]) {
    this.#failures = failures;
  }
  on(event: string, listener: Crash): void {
    if (event === this.events.CRASH) this.#crash = listener;
  }
  async connect(): Promise<void> {}
  async subscribe(): Promise<void> {}
  async disconnect(): Promise<void> {}
  async run(): Promise<void> {
    this.joins++;
    const error = this.#failures.shift();
    if (error) setImmediate(() => this.#crash({ payload: { error, restart: false } }));
    else this.onJoined();
  }
}

async function join(t: TestContext, consumer: FakeConsumer) {
  const warnings: string[] = [];
  const errors: unknown[] = [];
  let onError = (): void => {};
  const failed = new Promise<void>((resolve) => {
    onError = resolve;
  });
  const joined = new Promise<void>((resolve) => {
    consumer.onJoined = resolve;
  });
  const member: GroupMember = await joinGroup({
    kafka: { consumer: () => consumer } as unknown as Kafka,
    log: new LogWriter(
      ({ message }) => warnings.push(message),
      () => 0,
    ),
    groupId: 'g',
    topics: ['t'],
    sessionTimeoutMs: undefined,
    onRebalancing: async () => {},
    onOwned: async () => {},
    onError: (error) => {
      errors.push(error);
      onError();
    },
  });
  t.after(() => member.stop());
  return { member, warnings, errors, failed, joined };
}

describe('a group member', () => {
  it('whose first join finds no coordinator says so and tries until it is there', async (t) => {
    const consumer = new FakeConsumer([new CoordinatorNotFound('Failed to find group coordinator')]);
    const { warnings, errors, joined } = await join(t, consumer);
    await joined;
    assert.equal(consumer.joins, 2);
    assert.deepEqual(errors, []);
    assert.match(warnings.join('\n'), /Group g cannot be joined yet and is tried again: Failed to find/);
  });

  it('tells of what does not pass', async (t) => {
    const refused = new Error('a group of another protocol');
    const consumer = new FakeConsumer([refused]);
    const { errors, failed } = await join(t, consumer);
    await failed;
    assert.deepEqual(errors, [refused]);
    assert.equal(consumer.joins, 1);
  });

  it('that is stopped does not join again', async (t) => {
    const consumer = new FakeConsumer([new CoordinatorNotFound('Failed to find group coordinator')]);
    const { member, errors } = await join(t, consumer);
    await member.stop();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(consumer.joins, 1);
    assert.deepEqual(errors, []);
  });
});
