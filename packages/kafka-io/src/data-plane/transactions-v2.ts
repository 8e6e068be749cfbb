/**
 * What transactions of version 2 do otherwise (KIP-890): partitions and the group's offsets are added by the requests that
 * write to them, and each end raises the producer's epoch, so that nothing of an earlier transaction can come into a
 * later one. https://kafka.apache.org/protocol.html#protocol_api_keys
 */
import { call, check } from '../brokers.ts';
import type { Broker } from '../kafkajs-internals.ts';
import type { GroupOffset, Producer } from './transactions.ts';
import { WireReader, WireWriter } from './wire.ts';

const FEATURE = 'transaction.version';
const UNSUPPORTED_VERSION = 35;
const FINALIZED_FEATURES_TAG = 2;

/** Level of the cluster's finalized feature transaction.version (KIP-584); 0 where brokers are older than features. */
export async function transactionVersion(broker: Broker): Promise<number> {
  const body = new WireWriter().uvarint(0); // header of a flexible version: no tags
  body.compactString('onemall').compactString('1').uvarint(0);
  const answer = new WireReader(await call(broker, { key: 18, version: 3, name: 'ApiVersions' }, body));
  // This answer alone has a header without tags, and an old broker's is of version 0.
  const code = answer.int16();
  if (code === UNSUPPORTED_VERSION) return 0;
  check(code, 'to ApiVersions');
  answer.compactArray(() => {
    answer.int16(); // key, least and greatest version
    answer.int32();
    answer.skipTags();
  });
  answer.int32(); // throttle time
  let level = 0;
  for (let tags = answer.uvarint(); tags > 0; tags--) {
    const tag = answer.uvarint();
    const end = answer.uvarint() + answer.position;
    if (tag === FINALIZED_FEATURES_TAG)
      answer.compactArray(() => {
        const name = answer.compactString();
        const greatest = answer.int16();
        answer.int16(); // least
        answer.skipTags();
        if (name === FEATURE) level = greatest;
      });
    answer.position = end;
  }
  return level;
}

/** TxnOffsetCommit, version 5: adds the group's offsets to the transaction, too. */
export async function addAndCommitOffsets(
  groupCoordinator: Broker,
  producer: Producer,
  groupId: string,
  offsets: readonly GroupOffset[],
): Promise<void> {
  const body = new WireWriter().uvarint(0);
  body
    .compactString(producer.transactionalId)
    .compactString(groupId)
    .int64(producer.producerId)
    .int16(producer.producerEpoch)
    .int32(-1) // not as a member of the group: the transactional id fences
    .compactString('')
    .uvarint(0);
  body.compactArray([...Map.groupBy(offsets, (o) => o.topic)], ([topic, mine]) =>
    body
      .compactString(topic)
      .compactArray(mine, (o) =>
        body.int32(o.partition).int64(o.offset).int32(-1).compactString(o.metadata).uvarint(0),
      )
      .uvarint(0),
  );
  body.uvarint(0);
  const answer = new WireReader(
    await call(groupCoordinator, { key: 28, version: 5, name: 'TxnOffsetCommit' }, body),
  );
  answer.skipTags();
  answer.int32(); // throttle time
  answer.compactArray(() => {
    const topic = answer.compactString()!;
    answer.compactArray(() => {
      const partition = answer.int32();
      check(answer.int16(), `to TxnOffsetCommit of ${producer.transactionalId}, ${topic} ${partition}`);
      answer.skipTags();
    });
    answer.skipTags();
  });
}

/** EndTxn, version 5. @returns the producer for the next transaction: its epoch has grown, or its id is new */
export async function endAndRaiseEpoch(
  coordinator: Broker,
  producer: Producer,
  commit: boolean,
): Promise<Producer> {
  const { transactionalId } = producer;
  const body = new WireWriter()
    .uvarint(0)
    .compactString(transactionalId)
    .int64(producer.producerId)
    .int16(producer.producerEpoch)
    .int8(commit ? 1 : 0)
    .uvarint(0);
  const answer = new WireReader(await call(coordinator, { key: 26, version: 5, name: 'EndTxn' }, body));
  answer.skipTags();
  answer.int32(); // throttle time
  check(answer.int16(), `to EndTxn (${commit ? 'commit' : 'abort'}) of ${transactionalId}`);
  return { transactionalId, producerId: answer.int64(), producerEpoch: answer.int16() };
}
