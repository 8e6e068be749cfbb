/** Everything the updater knows: all items, what is published, the codebooks served, and the rooms it owns. */
import { isDeepStrictEqual } from 'node:util';
import type { Codebook as CodebookRecord, Item, ItemSid, LiveSid } from '@onemall/contracts';
import type { LiveTower, RoomFacts } from '@onemall/learning/live-tower';
import {
  Catalogue,
  type CodebookEncoder,
  type ItemTextEncoder,
  LIVE_STREAM,
  PRODUCT_CARD,
  SHORT_VIDEO,
} from '@onemall/quantization';
import { FlapGuard } from './flap-guard.ts';
import { PublishedItemSids, PublishedLiveSids, parseSidKey } from './published.ts';
import { Rooms } from './rooms.ts';

export interface StateOptions {
  scenarios: readonly string[];
  textEmbeddingDim: number;
  /** Of items that bring no embedding; hashed n-grams without one. */
  textEncoder?: ItemTextEncoder | null;
  debounceMs: number;
  maxDebounceMs: number;
  flapHoldMs: number;
  /** Partitions of live-product-changes; item partitions are dealt out by the same numbers. */
  numPartitions: number;
}

/** A codebook lives in the space of the encoder that it was trained with. */
export class TextEncoderError extends Error {
  override name = 'TextEncoderError';
}

export class UpdaterState {
  readonly scenarios: ReadonlySet<string>;
  readonly catalogue: Catalogue;
  readonly rooms: Rooms;
  readonly flaps: FlapGuard;
  readonly itemSids = new PublishedItemSids();
  readonly liveSids = new PublishedLiveSids();
  /** Codebook records by scenario, as read. */
  readonly codebookRecords = new Map<string, CodebookRecord[]>();
  /** Codebooks in use by scenario, lowest version first. */
  readonly #served = new Map<string, CodebookEncoder[]>();
  /** Frozen towers by version of the live codebook; a version without one takes the mean of the products. */
  readonly #towers = new Map<number, LiveTower>();
  /** By scenario: versions below are retired. */
  readonly #oldest = new Map<string, number>();
  /** SIDs of retired versions may be left. */
  #retiredLeft = false;
  readonly #roomFacts = new Map<string, RoomFacts>();
  /** Items to encode, with the stamp of the record that asks for it; null where none does. */
  readonly dirtyItems = new Map<string, number | null>();
  /** When an item of the scenario came last, by the clock. */
  readonly lastItemMs = new Map<string, number>();
  readonly #owned = new Set<number>();
  readonly #itemPartition = new Map<string, number>();
  readonly #numPartitions: number;

  constructor(options: StateOptions) {
    this.scenarios = new Set(options.scenarios);
    this.catalogue = new Catalogue(options.textEmbeddingDim, options.textEncoder ?? null);
    this.rooms = new Rooms(options);
    this.flaps = new FlapGuard(options.flapHoldMs);
    this.#numPartitions = options.numPartitions;
  }

  /** @throws ItemRefusedError for an item whose embedding cannot be used; the item before stays */
  takeItem(
    record: { key: string; value: Item | null; partition: number; timestampMs: number },
    nowMs: number,
  ): void {
    const { key, value, timestampMs } = record;
    this.#itemPartition.set(key, record.partition);
    const wasProduct = this.catalogue.scenarioOf(key) === PRODUCT_CARD;
    const affected = value ? this.catalogue.put(value) : this.catalogue.remove(key);
    if (value?.scenario === LIVE_STREAM) this.#takeRoomFacts(value);
    if (value && affected.length > 0) this.lastItemMs.set(value.scenario, nowMs);
    for (const itemId of affected) this.#markDirty(itemId, timestampMs);
    if (affected.length > 0 && (wasProduct || value?.scenario === PRODUCT_CARD))
      this.rooms.productChanged(key, value ? value.validFromMs : timestampMs);
  }

  /** Records come back to their writer, older than what it knows: a version only moves forward. */
  takeItemSid(key: string, value: ItemSid | null, timestampMs: number): void {
    const { id, version } = parseSidKey(key);
    const known = this.itemSids.get(id, version);
    const scenario = value?.sid.scenario ?? this.catalogue.scenarioOf(id);
    const retired = scenario !== null && this.isRetired(scenario, version);
    if (!value && this.catalogue.has(id) && !retired) return;
    if (value && retired) this.#retiredLeft = true;
    if (value && known && known.validFromMs > value.validFromMs) return;
    this.applyItemSid(key, value, timestampMs);
  }

  /** A SID that towers read changes the rooms that sell its item. */
  applyItemSid(key: string, value: ItemSid | null, timestampMs: number): void {
    const { id, version } = parseSidKey(key);
    const before = this.itemSids.get(id, version);
    this.itemSids.apply(key, value, timestampMs);
    const after = this.itemSids.get(id, version);
    const same = before?.c1 === after?.c1 && before?.c2 === after?.c2 && before?.c3 === after?.c3;
    if (same || ![...this.#towers.values()].some((t) => t.codebookVersions[PRODUCT_CARD] === version)) return;
    this.rooms.productChanged(id, value ? value.validFromMs : timestampMs);
  }

  #takeRoomFacts({ itemId, category, tags, priceCents, sellerId, validFromMs }: Item): void {
    const facts = { category, tags, priceCents, sellerId };
    const same = isDeepStrictEqual(this.#roomFacts.get(itemId), facts);
    this.#roomFacts.set(itemId, facts);
    if (!same && this.#towers.size > 0) this.rooms.computeAgain(itemId, validFromMs);
  }

  /** Of a room whose item is not known, too. */
  roomFacts(liveId: string): RoomFacts {
    return this.#roomFacts.get(liveId) ?? { category: '', tags: [], priceCents: 0, sellerId: '' };
  }
  tower(liveCodebookVersion: number): LiveTower | null {
    return this.#towers.get(liveCodebookVersion) ?? null;
  }

  takeLiveSid(key: string, value: LiveSid | null, timestampMs: number): void {
    const { id, version } = parseSidKey(key);
    const retired = this.isRetired(LIVE_STREAM, version);
    if (!value && this.rooms.isLive(id) && !retired) return;
    if (value && retired) this.#retiredLeft = true;
    const known = this.liveSids.get(id, version);
    if (value && known && known.sourceOffset >= value.sourceOffset && known.validFromMs >= value.validFromMs)
      return;
    this.liveSids.apply(key, value, timestampMs);
  }

  takeCodebook(record: CodebookRecord): void {
    const records = this.codebookRecords.get(record.scenario) ?? [];
    if (record.oldestVersion > this.oldestVersion(record.scenario)) {
      this.#oldest.set(record.scenario, record.oldestVersion);
      this.#retiredLeft = true;
    }
    const { scenario, codebookVersion: version, createdMs } = record;
    const known = records.find((r) => r.codebookVersion === version);
    const served = this.encoders(scenario).some(({ codebook }) => codebook.version === version);
    // The same version again asks for everything to be tokenized again.
    if (known && served && createdMs > known.createdMs) this.#tokenizeAll(scenario);
    this.codebookRecords.set(record.scenario, [
      ...records.filter((r) => r.codebookVersion !== record.codebookVersion),
      record,
    ]);
  }

  /** Versions of a scenario below this one are retired. */
  oldestVersion(scenario: string): number {
    return this.#oldest.get(scenario) ?? 1;
  }
  isRetired(scenario: string, version: number): boolean {
    return version < this.oldestVersion(scenario);
  }

  /** Versions in which SIDs of a scenario are published, retired ones left out. */
  publishedVersions(scenario: string): Set<number> {
    const published =
      scenario === LIVE_STREAM ? this.liveSids.versions() : this.itemSids.versionsIn(scenario);
    return new Set([...published].filter((version) => !this.isRetired(scenario, version)));
  }

  /** Takes the retired versions of a scenario out of use. @returns what is to be closed */
  stopRetired(scenario: string): { codebook: CodebookEncoder; tower: LiveTower | null }[] {
    const [kept, gone]: [CodebookEncoder[], CodebookEncoder[]] = [[], []];
    for (const encoder of this.encoders(scenario))
      (this.isRetired(scenario, encoder.codebook.version) ? gone : kept).push(encoder);
    if (gone.length > 0) this.#served.set(scenario, kept);
    return gone.map((codebook) => {
      const { version } = codebook.codebook;
      const tower = scenario === LIVE_STREAM ? this.tower(version) : null;
      if (tower) this.#towers.delete(version);
      return { codebook, tower };
    });
  }

  /**
   * Keys of SIDs in retired versions that this process owns, at most `count` of each kind; in most turns none, without a
   * look. A room that lives keeps its SID until it has one in a version that goes on: live-sids is its state.
   * @param except partitions of rooms that are left out this time
   */
  retiredSids(
    count: number,
    except: { has(partition: number): boolean },
  ): { items: string[]; rooms: { key: string; partition: number }[] } {
    if (!this.#retiredLeft) return { items: [], rooms: [] };
    const items: string[] = [];
    const rooms: { key: string; partition: number }[] = [];
    for (const key of this.itemSids.keysIn((scenario, version) => this.isRetired(scenario, version))) {
      if (items.length === count) break;
      if (this.#ownsItem(parseSidKey(key).id)) items.push(key);
    }
    let later = false;
    const served = this.encoders(LIVE_STREAM).map(({ codebook }) => codebook.version);
    for (const partition of this.#owned) {
      if (except.has(partition)) later = true;
      else
        for (const { liveId, key, version } of this.liveSids.ofPartition(partition)) {
          if (!this.isRetired(LIVE_STREAM, version)) continue;
          const goesOn = served.some((v) => !this.isRetired(LIVE_STREAM, v) && this.liveSids.has(liveId, v));
          if (rooms.length === count || (this.rooms.isLive(liveId) && !goesOn)) later = true;
          else rooms.push({ key, partition });
        }
    }
    this.#retiredLeft = later || items.length > 0 || rooms.length > 0;
    return { items, rooms };
  }

  /** Puts a codebook to use: everything of its scenario is to be encoded. */
  serve(encoder: CodebookEncoder, tower: LiveTower | null = null): void {
    const { scenario, dim, version, textEncoder = null } = encoder.codebook;
    const own = this.catalogue.textEncoderName;
    if (!tower && textEncoder !== own)
      throw new TextEncoderError(
        `Codebook ${version} of ${scenario} was trained on texts of ${textEncoder ?? 'hashed n-grams'}, this process embeds them by ${own ?? 'hashed n-grams'}. Set ONEMALL_TEXT_ENCODER_FOLDER to that encoder again.`,
      );
    if (tower) this.#towers.set(version, tower);
    const { catalogue } = this;
    if (scenario === SHORT_VIDEO) {
      const productDim = catalogue.contentDim(PRODUCT_CARD);
      catalogue.fixContentDim(PRODUCT_CARD, productDim);
      catalogue.fixContentDim(SHORT_VIDEO, dim - productDim);
    } else if (!tower) catalogue.fixContentDim(scenario === LIVE_STREAM ? PRODUCT_CARD : scenario, dim);
    const served = [...this.encoders(scenario), encoder];
    this.#served.set(
      scenario,
      served.sort((a, b) => a.codebook.version - b.codebook.version),
    );
    this.#tokenizeAll(scenario);
  }

  #tokenizeAll(scenario: string): void {
    if (scenario === LIVE_STREAM) this.rooms.codebookArrived();
    else for (const itemId of this.catalogue.ids(scenario)) this.#markDirty(itemId, null);
  }

  encoders(scenario: string): readonly CodebookEncoder[] {
    return this.#served.get(scenario) ?? [];
  }

  /** The partition is this process's: its rooms come back from live-sids, its items are compared with item-sids. */
  own(partition: number): void {
    this.#owned.add(partition);
    this.#retiredLeft = true;
    for (const { record } of this.liveSids.ofPartition(partition)) {
      this.rooms.restore(record);
      // A product may have changed while nobody looked.
      const causeMs = Math.max(0, ...record.sellingItemIds.map((id) => this.catalogue.validFromMs(id)));
      this.rooms.computeAgain(record.liveId, causeMs);
    }
    for (const itemId of this.#itemPartition.keys()) this.#markDirty(itemId, null);
  }

  disown(partition: number): void {
    this.#owned.delete(partition);
    this.rooms.forget(partition);
    for (const itemId of this.dirtyItems.keys()) if (!this.#ownsItem(itemId)) this.dirtyItems.delete(itemId);
  }

  ownsItemPartition(partition: number): boolean {
    return this.#owned.has(partition % this.#numPartitions);
  }

  #ownsItem(itemId: string): boolean {
    const partition = this.#itemPartition.get(itemId);
    return partition !== undefined && this.ownsItemPartition(partition);
  }

  #markDirty(itemId: string, stampMs: number | null): void {
    if (this.#ownsItem(itemId)) this.dirtyItems.set(itemId, stampMs);
  }
}
