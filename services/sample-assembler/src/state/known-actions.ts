/**
 * Clicks and buys of a partition until no copy of them can come any more: counted, reported or waiting. Of each the
 * record's bytes are kept, which hold its ids and go to late-events with it.
 */
import type { ActionKind } from '@onemall/event-time';
import type { BlockArena } from '../bytes/block-arena.ts';
import { copyBytes, equalBytes } from '../bytes/hash.ts';
import type { Sections } from '../bytes/sections.ts';
import { SlotColumns } from '../bytes/slot-columns.ts';
import { SlotTable } from '../bytes/slot-table.ts';
import { ActionFields } from './event-fields.ts';
import { NONE } from './known-exposures.ts';

const COLUMNS = {
  timeMs: Float64Array,
  /** In its log. */
  offset: Float64Array,
  appendTimeMs: Float64Array,
  /** Price x quantity; 0 for a click. */
  valueCents: Float64Array,
  quantity: Int32Array,
  hash: Int32Array,
  /** The record's value as it came, then its Avro bytes where those are other ones. */
  block: Int32Array,
  payloadLength: Int32Array,
  avroFrom: Int32Array,
  avroLength: Int32Array,
  /** The exposure that it counts for or touched, or -1. */
  exposure: Int32Array,
  /** The next one that counts for the same exposure. */
  nextOfExposure: Int32Array,
  isBuy: Uint8Array,
  stage: Uint8Array,
  /** Counted or reported. */
  isDone: Uint8Array,
} as const;

/** What an action will have to do next. */
export const STAGE = {
  /** It names no exposure; last touch finds one when the watermark reaches it. */
  undecided: 0,
  /** Until every exposure that it could join has closed. */
  waiting: 1,
  /** Kept so that copies are known. */
  ended: 2,
} as const;

export class KnownActions {
  readonly columns = new SlotColumns(COLUMNS);
  readonly #byId = new SlotTable();
  readonly #arena: BlockArena;
  readonly #fields = new ActionFields();
  readonly #compared = new ActionFields();
  /** Event time; what is not later is not found any more, though it may still be here. */
  forgottenToMs = Number.NEGATIVE_INFINITY;

  constructor(arena: BlockArena) {
    this.#arena = arena;
  }

  get sizeBytes(): number {
    return this.columns.sizeBytes + this.#byId.sizeBytes;
  }

  save(into: Sections): void {
    this.columns.save('actions', into);
  }
  load(from: Sections): void {
    this.columns.load('actions', from);
    this.#byId.addAll(this.columns, this.columns.of.hash);
  }

  find(fields: ActionFields, isBuy: boolean, hash: number): number {
    const table = this.#byId;
    for (let i = table.first(hash); table.slots[i]! >= 0; i = table.next(i)) {
      const slot = table.slots[i]!;
      if (table.hashes[i] !== hash || (this.columns.of.isBuy[slot] === 1) !== isBuy) continue;
      if (this.columns.of.timeMs[slot]! <= this.forgottenToMs) continue;
      const known = this.#read(slot, this.#compared);
      if (
        known.idLength === fields.idLength &&
        equalBytes(known.bytes, known.idAt, fields.bytes, fields.idAt, fields.idLength)
      )
        return slot;
    }
    return NONE;
  }

  /** @param payload the record's value as it came, of which the fields' bytes may be a part */
  add(
    fields: ActionFields,
    isBuy: boolean,
    hash: number,
    payload: { bytes: Uint8Array; start: number; end: number },
    more: { offset: number; appendTimeMs: number; stage: number },
  ): number {
    const slot = this.columns.add();
    const { of } = this.columns;
    const payloadLength = payload.end - payload.start;
    const avroLength = fields.end - fields.start;
    const isPart = fields.bytes === payload.bytes;
    const avroFrom = isPart ? fields.start - payload.start : payloadLength;
    const block = this.#arena.allocate(isPart ? payloadLength : payloadLength + avroLength);
    const bytes = this.#arena.bytesAt(block);
    const place = this.#arena.placeOf(block);
    copyBytes(payload.bytes, payload.start, payloadLength, bytes, place);
    if (!isPart) copyBytes(fields.bytes, fields.start, avroLength, bytes, place + avroFrom);
    of.timeMs[slot] = fields.timeMs;
    of.offset[slot] = more.offset;
    of.appendTimeMs[slot] = more.appendTimeMs;
    of.valueCents[slot] = fields.priceCents * fields.quantity;
    of.quantity[slot] = fields.quantity;
    of.hash[slot] = hash;
    of.block[slot] = block;
    of.payloadLength[slot] = payloadLength;
    of.avroFrom[slot] = avroFrom;
    of.avroLength[slot] = avroLength;
    of.exposure[slot] = NONE;
    of.nextOfExposure[slot] = NONE;
    of.isBuy[slot] = isBuy ? 1 : 0;
    of.stage[slot] = more.stage;
    of.isDone[slot] = 0;
    this.#byId.add(hash, slot);
    return slot;
  }

  remove(slot: number): void {
    const { of } = this.columns;
    this.#byId.remove(of.hash[slot]!, slot);
    this.#arena.free(of.block[slot]!);
    this.columns.free(slot);
  }

  kind(slot: number): ActionKind {
    return this.columns.of.isBuy[slot] ? 'BUY' : 'CLICK';
  }

  /** Where its fields lie; valid until the next call. */
  fields(slot: number): ActionFields {
    return this.#read(slot, this.#fields);
  }

  /** The record's value as it came, copied. */
  payload(slot: number): Buffer {
    const { of } = this.columns;
    const block = of.block[slot]!;
    const place = this.#arena.placeOf(block);
    return Buffer.from(this.#arena.bytesAt(block).subarray(place, place + of.payloadLength[slot]!));
  }

  #read(slot: number, into: ActionFields): ActionFields {
    const { of } = this.columns;
    const block = of.block[slot]!;
    const from = this.#arena.placeOf(block) + of.avroFrom[slot]!;
    into.locate(this.#arena.bytesAt(block), from, from + of.avroLength[slot]!, of.isBuy[slot] === 1);
    return into;
  }
}
