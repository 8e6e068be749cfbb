/** Membership without records: for services that read and commit by themselves. */
import type { Kafka } from 'kafkajs';
import type { Brokers } from './brokers.ts';
import { TopicRefusedError } from './errors.ts';
import { joinGroup } from './group-member.ts';
import type { LogWriter } from './log-writer.ts';
import type { Membership, MembershipOptions } from './ports.ts';
import type { TopicNames } from './topic-names.ts';

/** @throws TopicRefusedError when the topics' partition counts differ */
export async function joinAsMember(
  options: MembershipOptions,
  { kafka, brokers, names, log }: { kafka: Kafka; brokers: Brokers; names: TopicNames; log: LogWriter },
): Promise<Membership> {
  const topics = options.topics.map((t) => names.physical(t));
  await brokers.use(topics);
  const counts = topics.map((t) => `${t} ${brokers.numPartitions(t)}`);
  if (new Set(topics.map((t) => brokers.numPartitions(t))).size > 1)
    throw new TopicRefusedError(
      `Group ${options.groupId} joins partition p of all its topics, so their counts must be equal: ${counts.join(', ')}`,
    );
  let current: readonly number[] = [];
  const member = await joinGroup({
    kafka,
    log,
    groupId: options.groupId,
    topics,
    sessionTimeoutMs: options.sessionTimeoutMs,
    onError: options.onError,
    onRebalancing: async () => options.onRebalancing?.(),
    onOwned: async (owned) => {
      const assigned = owned.filter((p) => !current.includes(p));
      const revoked = current.filter((p) => !owned.includes(p));
      current = owned;
      if (assigned.length + revoked.length > 0) await options.onChange({ assigned, revoked });
    },
  });
  return { stop: () => member.stop() };
}
