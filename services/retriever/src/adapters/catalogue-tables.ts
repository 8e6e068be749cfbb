/** Feeds the catalogue from items, item-sids and live-sids: read to their end first, then followed. */
import type { TopicName, TopicValues } from '@onemall/contracts';
import type { KafkaIo, TableReader, TypedRecord } from '@onemall/kafka-io';
import type { Logger, StageMeter } from '@onemall/service-kit';
import type { SidCatalogue } from '../state/sid-catalogue.ts';

export interface CatalogueTables {
  /** Resolves when what was in the topics at this call is in the catalogue. */
  readToEnd(): Promise<void>;
  close(): Promise<void>;
}

export async function openCatalogueTables(options: {
  kafka: KafkaIo;
  catalogue: SidCatalogue;
  log: Logger;
  meter: StageMeter;
  fail: (error: unknown) => void;
}): Promise<CatalogueTables> {
  const { kafka, catalogue, log, meter, fail } = options;
  /** The producers of these topics validate; what still is wrong must neither stop the retriever nor reach the trie. */
  const open = <T extends TopicName>(topic: T, put: (key: string, value: TopicValues[T] | null) => void) =>
    kafka.openTable({
      topic,
      onError: fail,
      onDeadLetter: (reason) => meter.recordDeadLetter(reason),
      onRecord: (record: TypedRecord<T>) => {
        try {
          put(record.key, record.value);
        } catch (error) {
          meter.add('sids_refused');
          log.warn(
            { err: error, topic, partition: record.partition, offset: record.offset, key: record.key },
            'a record of a table is left out',
          );
        }
      },
    });
  const tables: TableReader[] = await Promise.all([
    open('items', (itemId, item) => catalogue.putItem(itemId, item)),
    open('item-sids', (key, sid) => catalogue.putItemSid(key, sid)),
    open('live-sids', (key, sid) => catalogue.putLiveSid(key, sid)),
  ]);
  return {
    async readToEnd() {
      await Promise.all(tables.map((table) => table.readToEnd()));
    },
    async close() {
      await Promise.all(tables.map((table) => table.close()));
    },
  };
}
