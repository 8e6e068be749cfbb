/** The compacted topics that the updater's state is made of, read to their ends and followed. */
import type { Item } from '@onemall/contracts';
import type { KafkaIo, RawRecord, RecordWriter, TableReader, TypedRecord } from '@onemall/kafka-io';
import type { Clock, StageMeter } from '@onemall/service-kit';
import { refusal, type UpdaterState } from '../state/updater-state.ts';

export interface Tables {
  itemSids: TableReader;
  liveSids: TableReader;
  /** Items are opened once the codebooks in use are known: these fix the length of embeddings. */
  openItems(): Promise<void>;
  /** Writes the dead letters of items refused since the last call. */
  flushRefused(writer: RecordWriter): Promise<void>;
  close(): Promise<void>;
}

interface Refused {
  record: TypedRecord<'items'> & { value: Item };
  reason: string;
  message: string;
}

export async function followTables(
  kafka: KafkaIo,
  state: UpdaterState,
  parts: { clock: Clock; meter: StageMeter; allowedClockSkewMs: number; onError: (error: unknown) => void },
): Promise<Tables> {
  const { clock, meter, onError } = parts;
  const refused: Refused[] = [];
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
    }),
  );
  const itemSids = await follow(
    kafka.openTable({
      topic: 'item-sids',
      onRecord: ({ key, value }) => state.takeItemSid(key, value),
      onError,
    }),
  );
  const liveSids = await follow(
    kafka.openTable({
      topic: 'live-sids',
      onRecord: ({ key, value }) => state.takeLiveSid(key, value),
      onError,
    }),
  );
  const onItem = (record: TypedRecord<'items'>): void => {
    meter.recordIn();
    const nowMs = clock.nowMs();
    try {
      state.takeItem(record, nowMs, nowMs + parts.allowedClockSkewMs);
    } catch (error) {
      const { value } = record;
      if (value) refused.push({ record: { ...record, value }, ...refusal(error) });
    }
  };
  return {
    itemSids,
    liveSids,
    openItems: async () => {
      await follow(kafka.openTable({ topic: 'items', onRecord: onItem, onError }));
    },
    flushRefused: async (writer) => {
      for (const { record, reason, message } of refused.splice(0)) {
        if (!state.ownsItemPartition(record.partition)) continue;
        const raw: RawRecord = {
          topic: 'items',
          partition: record.partition,
          offset: record.offset,
          timestampMs: record.timestampMs,
          key: Buffer.from(record.key),
          value: await kafka.encode('items', record.value),
        };
        await writer.send([kafka.deadLetter(raw, { reason, message })]);
        meter.recordDeadLetter(reason);
      }
    },
    close: async () => {
      for (const table of open) await table.close();
    },
  };
}
