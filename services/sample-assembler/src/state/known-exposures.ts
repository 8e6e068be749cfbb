/**
 * Exposures of a partition until no action and no copy can come any more. Of each its ids are kept as the Avro bytes that
 * came, by which a closed one is still known, and while it is open also what follows requestTimeMs, with which it leaves
 * in its samples. Scenario and times are numbers in columns.
 */
import { AvroReader } from '@onemall/contracts';
import type { BlockArena } from '../bytes/block-arena.ts';
import { copyBytes, equalBytes } from '../bytes/hash.ts';
import type { Sections } from '../bytes/sections.ts';
import { SlotColumns } from '../bytes/slot-columns.ts';
import { SlotTable } from '../bytes/slot-table.ts';
import { ExposureFields } from './event-fields.ts';

const COLUMNS = {
  timeMs: Float64Array,
  /** In the exposures log. */
  offset: Float64Array,
  hash: Int32Array,
  /** Ids of exposure, user, item and request, then requestTimeMs where requestAgeMs cannot tell it. */
  head: Int32Array,
  tail: Int32Array,
  tailLength: Int32Array,
  /** timeMs - requestTimeMs, or FAR where that is no 32-bit number. */
  requestAgeMs: Int32Array,
  user: Int32Array,
  nextOfUser: Int32Array,
  previousOfUser: Int32Array,
  /** First of the actions that count for it, linked through the actions. */
  firstAction: Int32Array,
  scenario: Uint8Array,
  isOpen: Uint8Array,
  /** Bit 0: its CLICK has left, bit 1: its BUY. */
  left: Uint8Array,
} as const;
const FAR = -0x80000000;
export const NONE = -1;

export class KnownExposures {
  readonly columns = new SlotColumns(COLUMNS);
  readonly #byId = new SlotTable();
  readonly #arena: BlockArena;
  readonly #reader = new AvroReader();
  readonly #fields = new ExposureFields();
  readonly #otherFields = new ExposureFields();
  numOpen = 0;
  /** Event time; what is not later is not found any more, though it may still be here. */
  forgottenToMs = Number.NEGATIVE_INFINITY;

  constructor(arena: BlockArena) {
    this.#arena = arena;
  }

  get sizeBytes(): number {
    return this.columns.sizeBytes + this.#byId.sizeBytes;
  }

  save(into: Sections): void {
    this.columns.save('exposures', into);
    into.facts.numOpen = this.numOpen;
  }
  load(from: Sections): void {
    this.columns.load('exposures', from);
    this.numOpen = from.fact<number>('numOpen');
    this.#byId.addAll(this.columns, this.columns.of.hash);
  }

  /** @returns the slot, or -1 */
  find(bytes: Uint8Array, idAt: number, idLength: number, hash: number): number {
    const table = this.#byId;
    for (let i = table.first(hash); table.slots[i]! >= 0; i = table.next(i)) {
      const slot = table.slots[i]!;
      if (table.hashes[i] !== hash || this.columns.of.timeMs[slot]! <= this.forgottenToMs) continue;
      const address = this.columns.of.head[slot]!;
      const head = this.#arena.bytesAt(address);
      const place = this.#arena.placeOf(address);
      const reader = this.#reader.on(head, place, head.length);
      if (reader.string() === idLength && equalBytes(head, reader.at - idLength, bytes, idAt, idLength))
        return slot;
    }
    return NONE;
  }

  add(
    fields: ExposureFields,
    hash: number,
    scenario: number,
    offset: number,
    user: number,
    isOpen: boolean,
  ): number {
    const slot = this.columns.add();
    const { of } = this.columns;
    of.timeMs[slot] = fields.timeMs;
    of.offset[slot] = offset;
    of.hash[slot] = hash;
    const requestAgeMs = fields.timeMs - fields.requestTimeMs;
    of.requestAgeMs[slot] = requestAgeMs === (requestAgeMs | 0) ? requestAgeMs : FAR;
    of.head[slot] = this.#keepHead(fields, of.requestAgeMs[slot] === FAR);
    of.user[slot] = user;
    of.nextOfUser[slot] = NONE;
    of.previousOfUser[slot] = NONE;
    of.firstAction[slot] = NONE;
    of.scenario[slot] = scenario;
    of.isOpen[slot] = isOpen ? 1 : 0;
    of.left[slot] = 0;
    of.tail[slot] = NONE;
    if (isOpen) {
      of.tailLength[slot] = fields.end - fields.headEnd;
      of.tail[slot] = this.#arena.put(fields.bytes, fields.headEnd, fields.end - fields.headEnd);
      this.numOpen++;
    }
    this.#byId.add(hash, slot);
    return slot;
  }

  #keepHead(fields: ExposureFields, withRequestTime: boolean): number {
    const idBytes = fields.itemAt + fields.itemLength - fields.start;
    const requestEnd = withRequestTime ? fields.headEnd : fields.requestAt + fields.requestLength;
    const requestBytes = requestEnd - fields.requestFrom;
    const head = this.#arena.allocate(idBytes + requestBytes);
    const to = this.#arena.bytesAt(head);
    const at = this.#arena.placeOf(head);
    copyBytes(fields.bytes, fields.start, idBytes, to, at);
    copyBytes(fields.bytes, fields.requestFrom, requestBytes, to, at + idBytes);
    return head;
  }

  /** From now on it is only known. */
  close(slot: number): void {
    const { of } = this.columns;
    this.#arena.free(of.tail[slot]!);
    of.tail[slot] = NONE;
    of.isOpen[slot] = 0;
    of.firstAction[slot] = NONE;
    this.numOpen--;
  }

  remove(slot: number): void {
    const { of } = this.columns;
    if (of.isOpen[slot]) this.close(slot);
    this.#byId.remove(of.hash[slot]!, slot);
    this.#arena.free(of.head[slot]!);
    this.columns.free(slot);
  }

  /** Its times and where its ids lie; valid until the next call. */
  head(slot: number): ExposureFields {
    return this.#readHead(slot, this.#fields);
  }
  /** The same for a second exposure beside it. */
  otherHead(slot: number): ExposureFields {
    return this.#readHead(slot, this.#otherFields);
  }
  #readHead(slot: number, into: ExposureFields): ExposureFields {
    const { of } = this.columns;
    const address = of.head[slot]!;
    const reader = into.readKept(this.#arena.bytesAt(address), this.#arena.placeOf(address));
    const age = of.requestAgeMs[slot]!;
    into.timeMs = of.timeMs[slot]!;
    into.requestTimeMs = age === FAR ? reader.long() : into.timeMs - age;
    return into;
  }

  requestTimeMs(slot: number): number {
    const { of } = this.columns;
    const age = of.requestAgeMs[slot]!;
    return age === FAR ? this.head(slot).requestTimeMs : of.timeMs[slot]! - age;
  }

  /** The oldest request of an open exposure, if that is before the given moment, else that. */
  oldestOpenRequestMs(beforeMs: number): number {
    let oldestMs = beforeMs;
    const { columns } = this;
    for (let slot = 0; slot < columns.end; slot++)
      if (columns.isUsed(slot) && columns.of.isOpen[slot])
        oldestMs = Math.min(oldestMs, this.requestTimeMs(slot));
    return oldestMs;
  }
}
