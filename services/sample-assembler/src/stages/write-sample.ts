/**
 * Writes the TrainingSample of an exposure as Avro bytes: the exposure's own bytes, labels, item and SID as of the
 * request, histories. Field order is that of schemas/TrainingSample.avsc.
 */
import type { Labels } from '@onemall/event-time';
import type { BlockArena } from '../bytes/block-arena.ts';
import { equalBytes, hashBytes } from '../bytes/hash.ts';
import type { ExposureFields } from '../state/event-fields.ts';
import type { HistoryLists } from '../state/history-list.ts';
import { type KnownExposures, NONE } from '../state/known-exposures.ts';
import { HISTORY_KINDS, type Users } from '../state/users.ts';
import type { CatalogueBytes } from './catalogue.ts';
import type { SampleBlock } from './sample-block.ts';

/** Symbols of the Avro enum SampleKind, in its order. */
export const SAMPLE_KIND = { CLICK: 0, BUY: 1, FINAL: 2 } as const;
export type SampleKindNumber = (typeof SAMPLE_KIND)[keyof typeof SAMPLE_KIND];

/** Everything of fixed size: header, enums, booleans and twelve numbers. */
const FIXED_BYTES = 180;

export interface SampleState {
  arena: BlockArena;
  exposures: KnownExposures;
  users: Users;
  /** Names by number, as Avro strings. */
  scenarioBytes: readonly Uint8Array[];
}

export class SampleWriter {
  readonly #state: SampleState;
  readonly #catalogue: CatalogueBytes;
  readonly #header: Uint8Array;
  readonly #historyLength: number;
  readonly #chosen: Int32Array;

  /** @param header what stands before the Avro bytes in wire format */
  constructor(state: SampleState, catalogue: CatalogueBytes, header: Uint8Array, historyLength: number) {
    this.#state = state;
    this.#catalogue = catalogue;
    this.#header = header;
    this.#historyLength = historyLength;
    this.#chosen = new Int32Array(historyLength);
  }

  /** @returns whether the sample has a SID */
  write(
    into: SampleBlock,
    slot: number,
    kind: SampleKindNumber,
    firstPositive: boolean,
    labels: Labels,
    watermarkMs: number,
    causeMs: number,
  ): boolean {
    const { arena, exposures, scenarioBytes } = this.#state;
    const { writer } = into;
    const { of } = exposures.columns;
    const tailLength = of.tailLength[slot]!;
    const head = exposures.head(slot);
    const scenario = scenarioBytes[of.scenario[slot]!]!;
    const headLength = head.requestAt + head.requestLength - head.start;
    writer.reserve(FIXED_BYTES + headLength + scenario.length + tailLength);
    const start = writer.at;
    writer.raw(this.#header, 0, this.#header.length);
    const shift = writer.at - head.start;
    writer.raw(head.bytes, head.start, head.requestFrom - head.start);
    writer.raw(scenario, 0, scenario.length);
    writer.long(head.timeMs);
    writer.raw(head.bytes, head.requestFrom, head.requestAt + head.requestLength - head.requestFrom);
    writer.long(head.requestTimeMs);
    const tail = of.tail[slot]!;
    writer.raw(arena.bytesAt(tail), arena.placeOf(tail), tailLength);
    writer.long(kind);
    writer.boolean(firstPositive);
    writer.boolean(labels.clicked);
    writer.optionalLong(labels.clickDelayMs);
    writer.boolean(labels.bought);
    writer.optionalLong(labels.buyDelayMs);
    writer.long(labels.buyValueCents);
    writer.long(labels.buyQuantity);
    const hasSid = this.#writeItem(into, head);
    if (this.#historyLength === 0) for (const _ of HISTORY_KINDS) writer.byte(0);
    else this.#writeHistories(into, head, of.user[slot]!);
    writer.reserve(10);
    writer.long(watermarkMs);
    into.add(start, head.userAt + shift, head.userLength, causeMs);
    return hasSid;
  }

  #writeItem({ writer }: SampleBlock, head: ExposureFields): boolean {
    const catalogue = this.#catalogue;
    const asOfMs = head.requestTimeMs;
    const hash = hashBytes(head.bytes, head.itemAt, head.itemLength);
    const item = catalogue.find(head.bytes, head.itemAt, head.itemLength, hash);
    const sid = item === NONE ? null : catalogue.sidBytes(item, asOfMs);
    if (sid === null) writer.byte(0);
    else {
      writer.reserve(1 + sid.length);
      writer.byte(2);
      writer.raw(sid, 0, sid.length);
    }
    const facts = item === NONE ? null : catalogue.facts(item, asOfMs);
    if (facts === null) writer.byte(0);
    else {
      const selling = catalogue.sellingBytes(item, asOfMs);
      writer.reserve(FIXED_BYTES + facts.bytesBeforeSelling.length + selling.length);
      writer.byte(2);
      writer.raw(facts.bytesBeforeSelling, 0, facts.bytesBeforeSelling.length);
      writer.raw(selling, 0, selling.length);
      writer.long(facts.validFromMs);
    }
    writer.reserve(FIXED_BYTES);
    return sid !== null;
  }

  /** The user's latest events before the request, none of the same request or exposure. */
  #writeHistories({ writer }: SampleBlock, head: ExposureFields, user: number): void {
    const { lists, columns } = this.#state.users;
    this.#state.users.warm(user);
    const catalogue = this.#catalogue;
    const asOfMs = head.requestTimeMs;
    const chosen = this.#chosen;
    for (const kind of HISTORY_KINDS) {
      lists.open(columns.of[kind][user]!);
      let count = 0;
      for (let i = lists.countBefore(asOfMs) - 1; i >= 0 && count < chosen.length; i--) {
        const entry = lists.entry(i);
        if (!this.#isOwn(lists, entry, kind === 'exposures', head)) chosen[count++] = entry;
      }
      writer.reserve(FIXED_BYTES);
      if (count > 0) writer.long(count);
      for (let i = 0; i < count; i++) {
        const entry = chosen[i]!;
        const itemAt = lists.itemAt(entry);
        const itemLength = lists.itemLength(entry);
        const item = catalogue.find(lists.bytes, itemAt, itemLength, lists.itemHash(entry));
        const facts = item === NONE ? null : catalogue.facts(item, asOfMs);
        writer.reserve(FIXED_BYTES + itemLength + (facts === null ? 0 : facts.categoryBytes.length));
        writer.string(lists.bytes, itemAt, itemLength);
        writer.long(lists.timeMs(entry));
        if (facts === null) writer.byte(0);
        else writer.raw(facts.categoryBytes, 0, facts.categoryBytes.length);
      }
      writer.byte(0);
    }
  }

  #isOwn(lists: HistoryLists, entry: number, isExposure: boolean, head: ExposureFields): boolean {
    const { bytes } = lists;
    const otherAt = lists.otherAt(entry);
    const otherLength = lists.otherLength(entry);
    if (isExposure)
      return (
        (otherLength === head.requestLength &&
          equalBytes(bytes, otherAt, head.bytes, head.requestAt, otherLength)) ||
        (lists.idLength(entry) === head.idLength &&
          equalBytes(bytes, lists.idAt(entry), head.bytes, head.idAt, head.idLength))
      );
    if (otherLength === 0) return false;
    if (otherLength === head.idLength && equalBytes(bytes, otherAt, head.bytes, head.idAt, otherLength))
      return true;
    return this.#isOfRequest(bytes, otherAt, otherLength, head);
  }

  /** Whether the exposure with this id is known and of the same request: of one that is still to come nothing tells. */
  #isOfRequest(bytes: Uint8Array, idAt: number, idLength: number, head: ExposureFields): boolean {
    const { exposures } = this.#state;
    const other = exposures.find(bytes, idAt, idLength, hashBytes(bytes, idAt, idLength));
    if (other === NONE) return false;
    const { bytes: own, requestAt, requestLength } = head;
    const ofOther = exposures.otherHead(other);
    return (
      ofOther.requestLength === requestLength &&
      equalBytes(ofOther.bytes, ofOther.requestAt, own, requestAt, requestLength)
    );
  }
}
