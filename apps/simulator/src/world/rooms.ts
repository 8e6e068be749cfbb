/** Live rooms: what they sell changes every few seconds, and what they match changes with it. */
import type { Item, ProductChange, ProductChangeKind } from '@onemall/contracts';
import type { SeededRandom } from '@onemall/service-kit';
import type { Catalogue, Shown } from './catalogue.ts';
import { normalize, zipfIndex } from './latent.ts';

export interface Room {
  liveId: string;
  /** Row of `Rooms.latent`. */
  row: number;
  topic: number;
  seller: number;
  /** Indices of the products on sale, in order of being added. */
  products: number[];
  explaining: number;
  clickQuality: number;
  endsAtMs: number;
}

export type RoomRecord =
  | { topic: 'items'; key: string; value: Item }
  | { topic: 'live-product-changes'; key: string; value: ProductChange };

export class Rooms {
  readonly open: Room[] = [];
  /** [liveRooms, latentDim]: normalized mean of the products on sale, the explained one counted three times. */
  readonly latent: Float32Array;
  readonly #catalogue: Catalogue;
  readonly #random: SeededRandom;
  readonly #runId: string;
  readonly #byId = new Map<string, Room>();
  #opened = 0;
  #changes = 0;

  constructor(catalogue: Catalogue, random: SeededRandom, runId: string) {
    this.#catalogue = catalogue;
    this.#random = random;
    this.#runId = runId;
    this.latent = new Float32Array(catalogue.spec.liveRooms * catalogue.spec.latentDim);
  }

  /** An open room, or undefined. */
  byId(liveId: string): Room | undefined {
    return this.#byId.get(liveId);
  }

  /** Opens a room in a free row and tells its item and first products. */
  start(row: number, nowMs: number): RoomRecord[] {
    const { spec } = this.#catalogue;
    const random = this.#random;
    const topic = random.int(spec.topics);
    const room: Room = {
      liveId: `live-${this.#runId}-${this.#opened++}`,
      row,
      topic,
      seller: random.int(spec.sellers),
      products: [],
      explaining: -1,
      clickQuality: spec.options.quality ? random.normal() : 0,
      endsAtMs: nowMs + random.exponential(spec.rooms.lifetimeMs),
    };
    const before = this.open[row];
    if (before) this.#byId.delete(before.liveId);
    this.#byId.set(room.liveId, room);
    this.open[row] = room;
    const wanted = spec.rooms.minProducts + random.int(spec.rooms.maxProducts - spec.rooms.minProducts + 1);
    const records: RoomRecord[] = [];
    for (let i = 0; i < wanted; i++) {
      const product = this.#newProduct(room);
      if (product >= 0) records.push(this.#add(room, product, nowMs));
    }
    records.push(this.#explain(room, nowMs));
    this.#match(room, true);
    return [{ topic: 'items', key: room.liveId, value: this.#item(room, nowMs) }, ...records];
  }

  /** One change of one room: a product comes, goes or is explained, or the room ends and another takes its row. */
  change(row: number, nowMs: number): RoomRecord[] {
    const room = this.open[row]!;
    const { rooms } = this.#catalogue.spec;
    if (nowMs >= room.endsAtMs)
      return [this.#record(room, 'ROOM_ENDED', null, nowMs), ...this.start(row, nowMs)];
    const draw = this.#random.next();
    let record: RoomRecord;
    const product = draw < 0.3 && room.products.length < rooms.maxProducts ? this.#newProduct(room) : -1;
    if (product >= 0) record = this.#add(room, product, nowMs);
    else if (draw < 0.6 && room.products.length > rooms.minProducts) record = this.#remove(room, nowMs);
    else record = this.#explain(room, nowMs);
    this.#match(room, this.#catalogue.spec.options.roomsFollowProducts);
    return [record];
  }

  shown(room: Room): Shown {
    const product = room.explaining;
    return {
      latent: this.latent,
      row: room.row,
      clickQuality: room.clickQuality,
      buyQuality: this.#catalogue.buyQuality[product]!,
      relativePrice: this.#catalogue.relativePrice[product]!,
      sells: true,
    };
  }
  priceCents(room: Room): number {
    return this.#catalogue.priceCents[room.explaining]!;
  }

  /** A popular product of the room's topic that it does not sell yet; -1 when a few draws found none. */
  #newProduct(room: Room): number {
    const random = this.#random;
    if (room.products.length > 0 && random.next() < this.#catalogue.spec.rooms.topicChange)
      room.topic = random.int(this.#catalogue.spec.topics);
    for (let tries = 0; tries < 8; tries++) {
      const list = this.#catalogue.productsOfTopic[room.topic]!;
      if (list.length > 0) {
        const product = list[zipfIndex(list.length, random)]!;
        if (!room.products.includes(product)) return product;
      }
      if (tries === 4) room.topic = random.int(this.#catalogue.spec.topics);
    }
    return room.products.length > 0 ? -1 : random.int(this.#catalogue.numProducts);
  }

  #add(room: Room, product: number, nowMs: number): RoomRecord {
    room.products.push(product);
    return this.#record(room, 'ADDED', product, nowMs);
  }
  #remove(room: Room, nowMs: number): RoomRecord {
    const candidates = room.products.filter((p) => p !== room.explaining);
    const product = this.#random.pick(candidates.length > 0 ? candidates : room.products);
    room.products = room.products.filter((p) => p !== product);
    if (room.explaining === product) room.explaining = room.products[0]!;
    return this.#record(room, 'REMOVED', product, nowMs);
  }
  #explain(room: Room, nowMs: number): RoomRecord {
    room.explaining = this.#random.pick(room.products);
    return this.#record(room, 'EXPLAINING', room.explaining, nowMs);
  }

  #match(room: Room, follow: boolean): void {
    if (!follow) return;
    const dim = this.#catalogue.spec.latentDim;
    const target = this.latent.subarray(room.row * dim, (room.row + 1) * dim).fill(0);
    for (const product of room.products) {
      const weight = product === room.explaining ? 3 : 1;
      const latent = this.#catalogue.latentOf(product);
      for (let d = 0; d < dim; d++) target[d]! += weight * latent[d]!;
    }
    normalize(target);
  }

  #item(room: Room, nowMs: number): Item {
    const words = this.#catalogue.topics.words[room.topic]!;
    return {
      itemId: room.liveId,
      scenario: 'live_stream',
      validFromMs: nowMs,
      title: `live shop ${room.seller} ${words.nouns.join(' ')}`,
      category: words.category,
      tags: ['live', words.nouns[0]!, words.styles[0]!],
      priceCents: this.priceCents(room),
      sellerId: `s${room.seller}`,
      productId: null,
      contentVideo: false,
      embedding: null,
    };
  }

  #record(room: Room, kind: ProductChangeKind, product: number | null, nowMs: number): RoomRecord {
    return {
      topic: 'live-product-changes',
      key: room.liveId,
      value: {
        changeId: `m${this.#runId}-${this.#changes++}`,
        liveId: room.liveId,
        kind,
        itemId: product === null ? null : this.#catalogue.itemId(product),
        eventTimeMs: nowMs,
      },
    };
  }
}
