/**
 * Reads a TrainingSample of this build's schema without making objects of its history, which is nearly all of it: some
 * hundred events of which a model takes an id and a time. They are read one by one when someone asks for them.
 */
import { isDeepStrictEqual } from 'node:util';
import avsc, { type Schema, type Type } from 'avsc';
import { AvroReader } from './avro-reader.ts';
import { avroType, WIRE_HEADER_BYTES } from './codec.ts';
import type { HistoryEvent, TrainingSample, UserHistory } from './generated/types.ts';
import { type AvroField, fullSchema } from './schemas.ts';

/** A user's history of which only one event after the other is asked for; every `UserHistory` is one. */
export type HistoryEvents = Readonly<Record<keyof UserHistory, Iterable<HistoryEvent>>>;
/** A sample as the models take it; every `TrainingSample` is one. */
export type StreamedSample = Omit<TrainingSample, 'history'> & { history: HistoryEvents };

type Head = Omit<TrainingSample, 'history' | 'watermarkMs'>;

const reader = new AvroReader();

/**
 * @param value in wire format, written with this build's schema
 * @returns null where the bytes are not as expected: decoding by the schema gives the reason, or a value that is unusual but fine
 */
export function readSample(value: Buffer): StreamedSample | null {
  const head = readHead(value);
  if (!head) return null;
  const { fields, offset } = head;
  reader.on(value, offset, value.length);
  passEvents(reader);
  const clicksAt = reader.at;
  passEvents(reader);
  const buysAt = reader.at;
  passEvents(reader);
  const historyEnd = reader.at;
  const watermarkMs = reader.long();
  if (!reader.ok || reader.at !== value.length) return null;
  // A copy: what waits for its batch must not hold all that was fetched with it.
  const bytes = Buffer.from(value.subarray(offset, historyEnd));
  const history = {
    exposures: new EventsInBytes(bytes, 0),
    clicks: new EventsInBytes(bytes, clicksAt - offset),
    buys: new EventsInBytes(bytes, buysAt - offset),
  };
  return { ...fields, history, watermarkMs };
}

function readHead(value: Buffer): { fields: Head; offset: number } | null {
  const type = headType();
  try {
    const { value: fields, offset } = type.decode(value, WIRE_HEADER_BYTES);
    return offset < 0 ? null : { fields: fields as Head, offset };
  } catch {
    return null; // whoever decodes by the schema throws it again, with its reason
  }
}

/** An Avro array of HistoryEvent in the form that all known writers give it: blocks without their size in bytes. */
function passEvents(events: AvroReader): void {
  for (let count = events.long(); count !== 0 && events.ok; count = events.long()) {
    if (count < 0) events.ok = false;
    for (; count > 0 && events.ok; count--) {
      events.string();
      events.long();
      events.string();
    }
  }
}

/** The events of one behaviour, in the order of the record. */
class EventsInBytes implements Iterable<HistoryEvent> {
  readonly #bytes: Buffer;
  readonly #at: number;
  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }
  [Symbol.iterator](): Iterator<HistoryEvent> {
    return new EventCursor(this.#bytes, this.#at);
  }
}

/** By hand: a generator took a third more time for a batch. */
class EventCursor implements Iterator<HistoryEvent> {
  readonly #bytes: Buffer;
  readonly #reader: AvroReader;
  #leftInBlock: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#reader = new AvroReader().on(bytes, at, bytes.length);
    this.#leftInBlock = this.#reader.long();
  }
  next(): IteratorResult<HistoryEvent> {
    if (this.#leftInBlock === 0) return { done: true, value: undefined };
    const event = new EventInBytes(this.#bytes, this.#reader);
    if (--this.#leftInBlock === 0) this.#leftInBlock = this.#reader.long();
    return { done: false, value: event };
  }
}

class EventInBytes implements HistoryEvent {
  readonly itemId: string;
  readonly eventTimeMs: number;
  readonly #bytes: Buffer;
  readonly #categoryEnd: number;
  readonly #categoryLength: number;

  constructor(bytes: Buffer, events: AvroReader) {
    const idLength = events.string();
    this.itemId = bytes.toString('utf8', events.at - idLength, events.at);
    this.eventTimeMs = events.long();
    this.#bytes = bytes;
    this.#categoryLength = events.string();
    this.#categoryEnd = events.at;
  }

  /** Read when asked for: the retriever never asks. */
  get category(): string {
    return this.#bytes.toString('utf8', this.#categoryEnd - this.#categoryLength, this.#categoryEnd);
  }
}

let cachedHead: Type | undefined;

/** What `readSample` passes over by hand, as avsc writes the schema. */
const EVENTS = {
  type: 'array',
  items: {
    name: 'onemall.HistoryEvent',
    type: 'record',
    fields: [
      { name: 'itemId', type: 'string' },
      { name: 'eventTimeMs', type: 'long' },
      { name: 'category', type: 'string' },
    ],
  },
};
const MORE_EVENTS = { type: 'array', items: EVENTS.items.name };
const TAIL = [
  {
    name: 'history',
    type: {
      name: 'onemall.UserHistory',
      type: 'record',
      fields: [
        { name: 'exposures', type: EVENTS },
        { name: 'clicks', type: MORE_EVENTS },
        { name: 'buys', type: MORE_EVENTS },
      ],
    },
  },
  { name: 'watermarkMs', type: 'long' },
];

/** The fields before the history, by the schema. @throws Error where the schema changed and this file did not */
function headType(): Type {
  if (cachedHead) return cachedHead;
  const { fields, ...record } = fullSchema('TrainingSample') as { fields: AvroField[] };
  const head = fields.slice(0, -TAIL.length);
  const whole = avroType('TrainingSample').schema() as unknown as { fields: unknown[] };
  const tail = whole.fields.slice(head.length);
  if (!isDeepStrictEqual(tail, TAIL))
    throw new Error(
      `readSample expects TrainingSample to end with ${JSON.stringify(TAIL)}, its schema ends with ${JSON.stringify(tail)}: change both together`,
    );
  cachedHead = avsc.Type.forSchema({ ...record, fields: head } as unknown as Schema);
  return cachedHead;
}
