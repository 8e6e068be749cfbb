/** Publishes the items of coming events, in pieces, so that each is known well before its first event. */
import type { OutRecord, RecordWriter } from '@onemall/kafka-io';
import type { StageMeter } from '@onemall/service-kit';
import type { ExternalSort } from './adapters/external-sort.ts';
import { deriveItem } from './stages/derive-item.ts';
import type { LogEvent } from './stages/events.ts';

const BATCH = 2_000;

export interface ItemsAheadOptions {
  events: ExternalSort<LogEvent>;
  writer: RecordWriter;
  meter: StageMeter;
  scenario: string;
  /** Events per piece; the items of two pieces are out before the first event. */
  itemsAhead: number;
  /** Items whose first event is before this one are in the topic already. */
  from: number;
}

/** A second reading of the events that runs ahead of the first. */
export class ItemsAhead {
  readonly #options: ItemsAheadOptions;
  readonly #batches: AsyncGenerator<LogEvent[]>;
  readonly #seen = new Set<string>();
  /** Events read so far. */
  #read = 0;
  #ended = false;

  constructor(options: ItemsAheadOptions) {
    this.#options = options;
    this.#batches = options.events.sorted();
  }

  /** True when less than one piece is left between this event and the items published. */
  isDue(position: number): boolean {
    return !this.#ended && position + this.#options.itemsAhead > this.#read;
  }

  /** Publishes the items of the two pieces of events after `position`; durable when it resolves. */
  async publishUpTo(position: number): Promise<void> {
    const { itemsAhead, from, scenario } = this.#options;
    const endAt = position + 2 * itemsAhead;
    let records: OutRecord[] = [];
    while (this.#read < endAt) {
      const next = await this.#batches.next();
      if (next.done) {
        this.#ended = true;
        break;
      }
      for (const event of next.value) {
        const { itemId } = event.value;
        const isNew = !this.#seen.has(itemId);
        this.#seen.add(itemId);
        if (isNew && this.#read >= from)
          records.push({ topic: 'items', key: itemId, value: deriveItem(event, scenario) });
        this.#read++;
      }
      if (records.length < BATCH) continue;
      await this.#send(records);
      records = [];
    }
    await this.#send(records);
  }

  async close(): Promise<void> {
    await this.#batches.return(undefined);
  }

  async #send(records: readonly OutRecord[]): Promise<void> {
    if (records.length === 0) return;
    const { writer, meter } = this.#options;
    await writer.send(records);
    meter.recordOut(records.length);
    meter.add('items_published', records.length, 'Items derived from the log');
  }
}
