/** Follows items, item-sids and live-sids into the catalogue. */
import type { KafkaIo } from '@onemall/kafka-io';
import type { StageMeter } from '@onemall/service-kit';
import { Catalogue } from '../stages/catalogue.ts';

export interface CatalogueTables {
  readonly catalogue: Catalogue;
  /** Resolves when everything that was in the three topics at this call is in the catalogue. */
  readToEnd(): Promise<void>;
  close(): Promise<void>;
}

export async function openCatalogue(
  io: KafkaIo,
  meter: StageMeter,
  onError: (error: unknown) => void,
): Promise<CatalogueTables> {
  const catalogue = new Catalogue();
  const onDeadLetter = (reason: string): void => meter.recordDeadLetter(reason);
  const tables = await io.openTables([
    {
      topic: 'items',
      onRecord: (r) => catalogue.putItem(r.key, r.value, r.timestampMs),
      onError,
      onDeadLetter,
    },
    {
      topic: 'item-sids',
      onRecord: (r) => catalogue.putItemSid(r.key, r.value, r.timestampMs),
      onError,
      onDeadLetter,
    },
    {
      topic: 'live-sids',
      onRecord: (r) => catalogue.putLiveSid(r.key, r.value, r.timestampMs),
      onError,
      onDeadLetter,
    },
  ]);
  return {
    catalogue,
    readToEnd: () => tables.readToEnd(),
    close: () => tables.close(),
  };
}
