/** The SIDs of items and live rooms in this trainer's codebook versions: as of any request, and those that exist now. */

import type { Sid } from '@onemall/contracts';
import { AsOfTable } from '@onemall/event-time';
import type { SidCodes } from '@onemall/features';
import type { KafkaIo, Position, TableReader } from '@onemall/kafka-io';
import type { Clock, StageMeter } from '@onemall/service-kit';
import type { Codebooks } from '../learner.ts';
import { ExistingSids } from '../state/existing-sids.ts';

/** How old an answer "read to the end" may be when a batch is built. */
const FRESH_MS = 1_000;
const FORGET_EVERY_MS = 60_000;
/** Listing all SIDs walks the whole table, too. */
const LIST_EVERY_MS = 60_000;

export class SidTables {
  readonly #clock: Clock;
  readonly #table = new AsOfTable<SidCodes>();
  /** As the retriever's shelf has them: of items and rooms until their tombstone, of rooms while they sell something. */
  readonly #retrievable = new Map<string, Sid>();
  #readers: TableReader[] = [];
  #freshAtMs = Number.NEGATIVE_INFINITY;
  #forgotAtMs = Number.NEGATIVE_INFINITY;
  readonly #numCodes: Codebooks['numCodes'];
  #existing: { sids: ExistingSids; atMs: number } | null = null;

  private constructor(clock: Clock, numCodes: Codebooks['numCodes']) {
    this.#clock = clock;
    this.#numCodes = numCodes;
  }

  /** Opens both tables and reads them to their end. */
  static async open(
    io: KafkaIo,
    clock: Clock,
    { codebookVersions, numCodes }: Codebooks,
    meter: StageMeter,
    onError: (error: unknown) => void,
  ): Promise<SidTables> {
    const tables = new SidTables(clock, numCodes);
    const put = (itemId: string, validFromMs: number, sid: Sid): void => {
      if (codebookVersions[sid.scenario] !== sid.codebookVersion) return;
      const [k1, k2, k3] = numCodes[sid.scenario]!;
      if (!(inside(sid.c1, k1) && inside(sid.c2, k2) && inside(sid.c3, k3))) {
        meter.add('sids_out_of_range');
        tables.#retrievable.delete(itemId);
        return;
      }
      tables.#table.put(itemId, validFromMs, sid);
      tables.#retrievable.set(itemId, sid);
    };
    // What it had before stays known: histories have events with items and rooms that are gone.
    const end = (key: string): void => {
      const colon = key.lastIndexOf(':');
      const itemId = key.slice(0, colon);
      // the tombstone of another version ends nothing here
      if (tables.#retrievable.get(itemId)?.codebookVersion === Number(key.slice(colon + 1)))
        tables.#retrievable.delete(itemId);
    };
    tables.#readers = [
      await io.openTable({
        topic: 'item-sids',
        onRecord: ({ key, value }) => (value ? put(value.itemId, value.validFromMs, value.sid) : end(key)),
        onError,
        onDeadLetter: (reason) => meter.recordDeadLetter(reason),
      }),
      await io.openTable({
        topic: 'live-sids',
        onRecord: ({ key, value }) => {
          // null until a sold product has one
          if (value?.sid) put(value.liveId, value.validFromMs, value.sid);
          if (!value?.sid || value.sellingItemIds.length === 0) end(key);
        },
        onError,
        onDeadLetter: (reason) => meter.recordDeadLetter(reason),
      }),
    ];
    await tables.readToEnd();
    return tables;
  }

  /** Reads on to the end of now, unless that was done within the last second. */
  async readToEnd(): Promise<void> {
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#freshAtMs < FRESH_MS) return;
    await Promise.all(this.#readers.map((reader) => reader.readToEnd()));
    this.#freshAtMs = nowMs;
  }

  sidOf = (itemId: string, timeMs: number): SidCodes | null => this.#table.asOf(itemId, timeMs);

  /** The SID of every item and room that can be retrieved now. */
  retrievable(): Iterable<SidCodes> {
    return this.#retrievable.values();
  }

  /** The same as a trie, as it was at most a minute ago. */
  existing(): ExistingSids {
    const nowMs = this.#clock.nowMs();
    if (!this.#existing || nowMs - this.#existing.atMs >= LIST_EVERY_MS)
      this.#existing = { sids: new ExistingSids(this.retrievable(), this.#numCodes), atMs: nowMs };
    return this.#existing.sids;
  }

  /** Drops versions that no request at or after timeMs can see; at most once a minute, it walks the whole table. */
  forgetBefore(timeMs: number): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#forgotAtMs < FORGET_EVERY_MS) return;
    this.#forgotAtMs = nowMs;
    this.#table.forgetBefore(timeMs);
  }

  positions(): Position[] {
    return this.#readers.flatMap((reader) => reader.positions());
  }
  get size(): number {
    return this.#table.size;
  }

  async close(): Promise<void> {
    await Promise.all(this.#readers.map((reader) => reader.close()));
  }
}

const inside = (code: number, k: number): boolean => code >= 0 && code < k;
