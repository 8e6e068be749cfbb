/** The compacted topics that the updater's state is made of, read to their ends and followed. */
import type { Item } from '@onemall/contracts';
import type { KafkaIo, RawRecord, RecordWriter, TableReader, TypedRecord } from '@onemall/kafka-io';
import { ItemRefusedError } from '@onemall/quantization';
import type { Clock, StageMeter } from '@onemall/service-kit';
import type { UpdaterState } from '../state/updater-state.ts';

export interface Tables {
  itemSids: TableReader;
  liveSids: TableReader;
  /** Items are opened once the codebooks in use are known: these fix the length of embeddings. */
  openItems(): Promise<void>;
  /** Writes the dead letters of refused items whose partition this process owns. */
  flushRefused(writer: RecordWriter): Promise<void>;
  close(): Promise<void>;
}

interface Refused {
  record: TypedRecord<'items'> & { value: Item };
  error: ItemRefusedError;
}

export async function followTables(
  kafka: KafkaIo,
  state: UpdaterState,
  parts: { clock: Clock; meter: StageMeter; onError: (error: unknown) => void },
): Promise<Tables> {
  const { clock, meter, onError } = parts;
  const onDeadLetter = (reason: string): void => meter.recordDeadLetter(reason);
  /** By item: the newest record counts, and one that is right or gone has nothing to report. */
  const refused = new Map<string, Refused>();
  const open: TableReader[] = [];
  const follow = async <R extends TableReader>(table: Promise<R>): Promise<R> => {
    const opened = await table;
    open.push(opened);
    await opened.readToEnd();
    return opened;
  };
  await follow(
    kafka.openTable({
      topic: 'codebooks',
      onRecord: ({ value }) => {
        if (value && state.scenarios.has(value.scenario)) state.takeCodebook(value);
      },
      onError,
      onDeadLetter,
    }),
  );
  const itemSids = await follow(
    kafka.openTable({
      topic: 'item-sids',
      onRecord: ({ key, value, timestampMs }) => state.takeItemSid(key, value, timestampMs),
      onError,
      onDeadLetter,
    }),
  );
  const liveSids = await follow(
    kafka.openTable({
      topic: 'live-sids',
      onRecord: ({ key, value, timestampMs }) => state.takeLiveSid(key, value, timestampMs),
      onError,
      onDeadLetter,
    }),
  );
  const onItem = (record: TypedRecord<'items'>): void => {
    meter.recordIn();
    try {
      state.takeItem(record, clock.nowMs());
      refused.delete(record.key);
    } catch (error) {
      const { value } = record;
      if (!value || !(error instanceof ItemRefusedError)) throw error;
      refused.set(record.key, { record: { ...record, value }, error });
    }
  };
  return {
    itemSids,
    liveSids,
    openItems: async () => {
      await follow(kafka.openTable({ topic: 'items', onRecord: onItem, onError, onDeadLetter }));
    },
    flushRefused: async (writer) => {
      for (const [key, item] of refused) {
        const { record, error } = item;
        // Its owner reports it; this process does once the partition comes to it.
        if (!state.ownsItemPartition(record.partition)) continue;
        const raw: RawRecord = {
          topic: 'items',
          partition: record.partition,
          offset: record.offset,
          timestampMs: record.timestampMs,
          key: Buffer.from(record.key),
          value: await kafka.encode('items', record.value),
        };
        await writer.send([kafka.deadLetter(raw, error)]);
        if (refused.get(key) === item) refused.delete(key); // not one that came while this one was sent
        meter.recordDeadLetter(error.reason);
      }
    },
    close: async () => {
      for (const table of open) await table.close();
    },
  };
}
