/** What tests write into the topics that others fill, and what they read of those that the services write. */
import type { Item, ProductChangeKind, TopicName } from '@onemall/contracts';
import type { KafkaIo, RecordWriter, TypedRecord } from '@onemall/kafka-io';

/** A vector of its own for each number, the same each time. */
export const vectorOf = (n: number, dim = 8): number[] =>
  Array.from({ length: dim }, (_, d) => Math.fround(Math.sin(1 + n * 12.9898 + d * 78.233)));

/** One namespace of a broker; its topics are there already. */
export class TestNamespace {
  readonly kafka: KafkaIo;
  readonly writer: RecordWriter;
  #changes = 0;

  constructor(kafka: KafkaIo, writer: RecordWriter) {
    this.kafka = kafka;
    this.writer = writer;
  }

  async put(...items: Item[]): Promise<void> {
    await this.writer.send(items.map((value) => ({ topic: 'items', key: value.itemId, value })));
  }

  async change(
    liveId: string,
    kind: ProductChangeKind,
    itemId: string | null,
    eventTimeMs: number,
  ): Promise<void> {
    const value = { changeId: `change-${++this.#changes}`, liveId, kind, itemId, eventTimeMs };
    await this.writer.send([{ topic: 'live-product-changes', key: liveId, value }]);
  }

  /** Everything that the topic gives, from its beginning on. */
  async follow<T extends TopicName>(topic: T): Promise<TypedRecord<T>[]> {
    const records: TypedRecord<T>[] = [];
    await this.kafka.openTable({
      topic,
      onRecord: (record) => void records.push(record),
      onError: (error) => console.error(error),
    });
    return records;
  }

  async close(): Promise<void> {
    await this.writer.close();
    await this.kafka.close();
  }
}
