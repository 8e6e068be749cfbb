/**
 * OffsetFetch, version 7, which can ask for stable offsets (KIP-447): while a transaction that commits offsets of these
 * partitions is pending the broker answers UNSTABLE_OFFSET_COMMIT. kafkajs stops at version 4, which gives the old value.
 */
import { call, check } from '../brokers.ts';
import type { Broker } from '../kafkajs-internals.ts';
import type { GroupOffset, TopicPartitions } from './transactions.ts';
import { WireReader, WireWriter } from './wire.ts';

/**
 * Offset -1 where the group has committed none.
 * @param requireStable while a transaction is pending the answer is an error; else what was committed before it
 * @throws BrokerError UNSTABLE_OFFSET_COMMIT, which passes
 */
export async function fetchGroupOffsets(
  coordinator: Broker,
  groupId: string,
  topics: readonly TopicPartitions[],
  requireStable = true,
): Promise<GroupOffset[]> {
  const body = new WireWriter().uvarint(0); // header of a flexible version: no tags
  body.compactString(groupId);
  body.compactArray(topics, ({ topic, partitions }) =>
    body
      .compactString(topic)
      .compactArray(partitions, (p) => body.int32(p))
      .uvarint(0),
  );
  body.int8(requireStable ? 1 : 0).uvarint(0); // no tags
  const answer = new WireReader(await call(coordinator, { key: 9, version: 7, name: 'OffsetFetch' }, body));
  answer.skipTags();
  answer.int32(); // throttle time
  const offsets = answer.compactArray(() => {
    const topic = answer.compactString()!;
    const mine = answer.compactArray(() => {
      const partition = answer.int32();
      const offset = answer.int64();
      answer.int32(); // leader epoch
      const metadata = answer.compactString() ?? '';
      const code = answer.int16();
      answer.skipTags();
      return { topic, partition, offset, metadata, code };
    });
    answer.skipTags();
    return mine;
  });
  check(answer.int16(), `to OffsetFetch of group ${groupId}`);
  return offsets.flat().map(({ code, ...offset }) => {
    check(code, `to OffsetFetch of group ${groupId}, ${offset.topic} ${offset.partition}`);
    return offset;
  });
}
