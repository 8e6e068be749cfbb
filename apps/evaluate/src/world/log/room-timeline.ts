/** What each live room sold at any moment. A room's versions are linked from the newest back; few are older than asked for. */
import { Column } from './columns.ts';

export interface RoomFacts {
  category: string;
  tags: string[];
  priceCents: number;
  sellerId: string;
  validFromMs: number;
}

export class RoomTimeline {
  /** By serial number of the room, in order of opening. */
  readonly facts: RoomFacts[] = [];
  readonly #newest: Column<Int32Array> = Column.ints();
  readonly #validFromMs = Column.doubles();
  readonly #previous = Column.ints();
  readonly #firstProduct = Column.ints();
  readonly #numProducts = Column.ints();
  readonly #explaining = Column.ints();
  readonly #products = Column.ints();

  get numVersions(): number {
    return this.#validFromMs.length;
  }

  open(facts: RoomFacts): number {
    this.#newest.push(-1);
    return this.facts.push(facts) - 1;
  }

  /** @param products item indices on sale, in order of being added; none once the room has ended */
  change(room: number, timeMs: number, products: readonly number[], explaining: number): void {
    const before = this.#newest.at(room);
    const version = this.#validFromMs.push(timeMs);
    this.#previous.push(before);
    this.#firstProduct.push(this.#products.length);
    this.#numProducts.push(products.length);
    this.#explaining.push(explaining);
    for (const product of products) this.#products.push(product);
    this.#newest.set(room, version);
  }

  /** The version valid at a moment, or -1 before the first. */
  versionAt(room: number, timeMs: number): number {
    let version = this.#newest.at(room);
    while (version >= 0 && this.#validFromMs.at(version) > timeMs) version = this.#previous.at(version);
    return version;
  }
  newestVersion(room: number): number {
    return this.#newest.at(room);
  }
  previousVersion(version: number): number {
    return this.#previous.at(version);
  }

  products(version: number): Int32Array {
    const from = this.#firstProduct.at(version);
    return this.#products.rows().subarray(from, from + this.#numProducts.at(version));
  }
  explaining(version: number): number {
    return this.#explaining.at(version);
  }
  validFromMs(version: number): number {
    return this.#validFromMs.at(version);
  }
}
