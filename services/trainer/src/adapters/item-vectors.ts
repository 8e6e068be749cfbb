/**
 * Writes the vectors of the item tower of each published policy to item-embeddings: all live rooms that sell something,
 * and of the other items some in turn. They are computed with the published file itself, so that whoever loads
 * that artifact gets the same numbers.
 */
import { setImmediate as afterOtherWork } from 'node:timers/promises';
import { itemTensors, type SidCodes, type SidLayout } from '@onemall/features';
import type { KafkaIo, OutRecord, RecordWriter, TableReader } from '@onemall/kafka-io';
import { loadItemTower } from '@onemall/learning';
import type { Clock, StageMeter } from '@onemall/service-kit';
import type { Files } from '../learner.ts';
import { type CataloguedItem, ItemCatalogue } from '../state/item-catalogue.ts';

export interface ItemVectorsParts {
  io: KafkaIo;
  clock: Clock;
  meter: StageMeter;
  writer: RecordWriter;
  layout: SidLayout;
  /** SID of an item as of a moment. */
  sidOf: (itemId: string, timeMs: number) => SidCodes | null;
  /** Items besides live rooms that are written with one policy. */
  itemsPerPolicy: number;
  onError: (error: unknown) => void;
}

/** Records of one send: a room's vector of 64 values is about 350 bytes. */
const CHUNK = 512;

export class ItemVectors {
  readonly #parts: ItemVectorsParts;
  readonly #catalogue: ItemCatalogue;
  #tables: TableReader[] = [];

  private constructor(parts: ItemVectorsParts) {
    this.#parts = parts;
    this.#catalogue = new ItemCatalogue(parts.layout.scenarios);
  }

  static async open(parts: ItemVectorsParts): Promise<ItemVectors> {
    const { io, meter, onError } = parts;
    const vectors = new ItemVectors(parts);
    const onDeadLetter = (reason: string): void => meter.recordDeadLetter(reason);
    vectors.#tables = [
      await io.openTable({
        ...{ topic: 'items', onError, onDeadLetter },
        onRecord: ({ key, value }) => vectors.#catalogue.putItem(key, value),
      }),
      await io.openTable({
        ...{ topic: 'live-sids', onError, onDeadLetter },
        onRecord: ({ value }) => value && vectors.#catalogue.putRoom(value),
      }),
    ];
    return vectors;
  }

  /** @param files of the policy just published @returns how many vectors are in the topic now */
  async publish(policyVersion: string, files: Files, stopping: AbortSignal): Promise<number> {
    const { clock, meter, writer } = this.#parts;
    await Promise.all(this.#tables.map((table) => table.readToEnd()));
    const removed = this.#catalogue.takeRemoved();
    await writer.send(removed.map((key) => ({ topic: 'item-embeddings', key, value: null })));
    const due = [...this.#catalogue.rooms(), ...this.#catalogue.takeInTurn(this.#parts.itemsPerPolicy)];
    const tower = await loadItemTower(files);
    try {
      for (let at = 0; at < due.length && !stopping.aborted; at += CHUNK) {
        const items = due.slice(at, at + CHUNK);
        const vectors = await tower.embed(this.#tensors(items));
        const createdMs = clock.nowMs();
        await writer.send(
          items.map(({ itemId, scenario }, i): OutRecord<'item-embeddings'> => {
            const vector = Array.from(vectors.subarray(i * tower.dim, (i + 1) * tower.dim));
            return {
              topic: 'item-embeddings',
              key: itemId,
              value: { itemId, scenario, vector, policyVersion, createdMs },
            };
          }),
        );
        meter.add('item_vectors', items.length);
        await afterOtherWork();
      }
    } finally {
      await tower.close();
    }
    return due.length;
  }

  #tensors(items: readonly CataloguedItem[]) {
    const { clock, layout, sidOf } = this.#parts;
    const nowMs = clock.nowMs();
    return items.map(({ itemId, scenario, features }) =>
      itemTensors({ scenario, features, sid: sidOf(itemId, nowMs) }, (soldId) => sidOf(soldId, nowMs), {
        layout,
      }),
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.#tables.map((table) => table.close()));
  }
}
