/** Feeds item facts from items and live-sids: read to their end first, then followed. */
import type { KafkaIo } from '@onemall/kafka-io';
import type { StageMeter } from '@onemall/service-kit';
import type { ItemFacts } from '../state/item-facts.ts';

export async function openItemTables(options: {
  kafka: KafkaIo;
  facts: ItemFacts;
  meter: StageMeter;
  fail: (error: unknown) => void;
}): Promise<{ close(): Promise<void> }> {
  const { kafka, facts, meter, fail } = options;
  const onDeadLetter = (reason: string): void => meter.recordDeadLetter(reason);
  const tables = await Promise.all([
    kafka.openTable({
      topic: 'items',
      onError: fail,
      onDeadLetter,
      onRecord: ({ key, value, timestampMs }) => facts.putItem(key, value, timestampMs),
    }),
    kafka.openTable({
      topic: 'live-sids',
      onError: fail,
      onDeadLetter,
      onRecord: ({ key, value, timestampMs }) => facts.putRoom(key, value, timestampMs),
    }),
  ]);
  await Promise.all(tables.map((table) => table.readToEnd()));
  return {
    async close() {
      await Promise.all(tables.map((table) => table.close()));
    },
  };
}
