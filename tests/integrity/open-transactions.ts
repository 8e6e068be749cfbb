/**
 * What `kafka-transactions.sh` asks of a broker that leads everything: which transactions are open in a partition
 * (find-hanging, describe-producers), and to abort one of them.
 */
import { Brokers, call, check } from '../../packages/kafka-io/src/brokers.ts';
import { WireReader, WireWriter } from '../../packages/kafka-io/src/data-plane/wire.ts';
import { LogWriter } from '../../packages/kafka-io/src/log-writer.ts';

export interface OpenTransaction {
  topic: string;
  partition: number;
  producerId: number;
  producerEpoch: number;
  coordinatorEpoch: number;
}

export class Operator {
  readonly #brokers: Brokers;

  private constructor(brokers: Brokers) {
    this.#brokers = brokers;
  }

  static async connect(address: string): Promise<Operator> {
    const log = new LogWriter(() => {}, Date.now);
    const brokers = new Brokers({ brokers: address, access: {}, clientId: 'operator', log });
    await brokers.connect();
    return new Operator(brokers);
  }

  /** DescribeProducers, version 0. */
  async openTransactions(topics: readonly string[], numPartitions: number): Promise<OpenTransaction[]> {
    await this.#brokers.use(topics);
    const body = new WireWriter().uvarint(0); // header of a flexible version: no tags
    const partitions = Array.from({ length: numPartitions }, (_, partition) => partition);
    body.compactArray(topics, (topic) =>
      body
        .compactString(topic)
        .compactArray(partitions, (partition) => body.int32(partition))
        .uvarint(0),
    );
    body.uvarint(0);
    const api = { key: 61, version: 0, name: 'DescribeProducers' };
    const answer = new WireReader(await call(await this.#brokers.anyBroker(), api, body));
    answer.skipTags();
    answer.int32(); // throttle time
    const found = answer.compactArray(() => {
      const topic = answer.compactString()!;
      const mine = answer.compactArray(() => {
        const partition = answer.int32();
        check(answer.int16(), `to DescribeProducers of ${topic} ${partition}`);
        answer.compactString(); // error message
        const producers = answer.compactArray(() => {
          const [producerId, producerEpoch] = [answer.int64(), answer.int32()];
          answer.int32(); // last sequence number
          answer.int64(); // last time
          const [coordinatorEpoch, startOffset] = [answer.int32(), answer.int64()];
          answer.skipTags();
          return { topic, partition, producerId, producerEpoch, coordinatorEpoch, startOffset };
        });
        answer.skipTags();
        return producers;
      });
      answer.skipTags();
      return mine.flat();
    });
    return found.flat().filter(({ startOffset }) => startOffset >= 0);
  }

  /** WriteTxnMarkers, version 1, with one marker. */
  async abort({
    topic,
    partition,
    producerId,
    producerEpoch,
    coordinatorEpoch,
  }: OpenTransaction): Promise<void> {
    const body = new WireWriter().uvarint(0);
    body.compactArray([topic], (name) => {
      body.int64(producerId).int16(producerEpoch).int8(0); // abort
      body.compactArray([name], () =>
        body
          .compactString(name)
          .compactArray([partition], (p) => body.int32(p))
          .uvarint(0),
      );
      body.int32(Math.max(0, coordinatorEpoch)).uvarint(0);
    });
    body.uvarint(0);
    const api = { key: 27, version: 1, name: 'WriteTxnMarkers' };
    const answer = new WireReader(await call(await this.#brokers.anyBroker(), api, body));
    answer.skipTags();
    answer.compactArray(() => {
      answer.int64();
      answer.compactArray(() => {
        answer.compactString();
        answer.compactArray(() => {
          answer.int32();
          check(answer.int16(), `to WriteTxnMarkers of ${topic} ${partition}`);
          answer.skipTags();
        });
        answer.skipTags();
      });
      answer.skipTags();
    });
  }

  close(): Promise<void> {
    return this.#brokers.close();
  }
}
