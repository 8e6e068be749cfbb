/**
 * Drives the pure join as the service does, on logs that grow by a clock of the test: polls bring what was appended,
 * the furthest input is fed first, transactions cut, and a crash restores from the last cut.
 */
import { tmpdir } from 'node:os';
import { AttributionWindows } from '@onemall/event-time';
import { HistoryDisk, type SavedHistories } from '../src/adapters/history-disk.ts';
import { Sections } from '../src/bytes/sections.ts';
import { Catalogue } from '../src/stages/catalogue.ts';
import { allPins, formatMetadata, packPins, parseMetadata } from '../src/stages/commit-metadata.ts';
import type { JoinRules } from '../src/stages/join-partition.ts';
import { byTopic, LOG_TOPICS, type LogTopic } from '../src/stages/log-record.ts';
import { InputMerge } from '../src/stages/take-in-order.ts';
import { ByteJoin, canonical, OTHER_SCHEMA, passOver, SAMPLE_HEADER, wireBytes } from './byte-join.ts';
import type { JoinOutput, LogRecord } from './plain/log-record.ts';
import { type Arrival, GRACE_MS, OUT_OF_ORDERNESS_MS, SCENARIOS } from './traffic.ts';

export const ATTRIBUTION = { scenarios: SCENARIOS, graceMs: GRACE_MS, outOfOrdernessMs: OUT_OF_ORDERNESS_MS };
export const WINDOWS = new AttributionWindows(ATTRIBUTION);
export const RULES: JoinRules = {
  windows: WINDOWS,
  historyLength: 5,
  emitPositives: true,
  sampleHeader: SAMPLE_HEADER,
};
const MAX_DELAY_MS = 100;
/** So little that a user's histories go to disk whenever another's come, and that segments are often written anew. */
const CACHE_BYTES = 600;
const SEGMENT_BYTES = 4_000;
/** More never stand side by side in one test. */
const OPEN_DISKS = 16;
const disks: HistoryDisk[] = [];

/** A small disk for histories; the oldest of many is closed. */
export function testCache(maxBytes = CACHE_BYTES): { cold: HistoryDisk; maxBytes: number } {
  if (disks.length === OPEN_DISKS) disks.shift()!.close();
  const cold = new HistoryDisk(tmpdir(), SEGMENT_BYTES);
  disks.push(cold);
  return { cold, maxBytes };
}

/** Two versions of every item and SID, so that as-of look-ups matter; one item has none. */
export function testCatalogue(startMs: number): Catalogue {
  const catalogue = new Catalogue();
  for (let i = 1; i < 15; i++) {
    const itemId = `item-${i}`;
    for (const [version, validFromMs] of [0, startMs + 500 * i].entries()) {
      const item = {
        itemId,
        scenario: 'product_card',
        validFromMs,
        title: itemId,
        category: `category-${(i + version) % 4}`,
        tags: [`tag-${version}`],
        priceCents: 100 * i + version,
        sellerId: `seller-${i % 3}`,
        productId: null,
        contentVideo: false,
        embedding: null,
      };
      catalogue.putItem(itemId, item, validFromMs);
      const sid = { scenario: 'product_card', codebookVersion: 1, c1: i, c2: version, c3: 0 };
      const record = { itemId, sid, validFromMs, reason: 'NEW_ITEM', createdMs: validFromMs } as const;
      catalogue.putItemSid(`${itemId}:1`, record, validFromMs);
    }
  }
  return catalogue;
}

export interface Log {
  records: Record<LogTopic, LogRecord[]>;
  endMs: number;
}

/** Gives the arrivals offsets, as one partition of the three topics would. */
export function appendAll(arrivals: readonly Arrival[], poison: ReadonlySet<number> = new Set()): Log {
  const records: Log['records'] = { exposures: [], clicks: [], buys: [] };
  for (const [at, { topic, value, arrivesMs }] of arrivals.entries()) {
    const list = records[topic];
    const source = {
      partition: 0,
      offset: list.length,
      appendTimeMs: arrivesMs,
      // Now and then in a schema that is not this build's.
      payload: wireBytes(topic, value, at % 7 === 3 ? OTHER_SCHEMA : undefined),
    };
    list.push({ ...source, topic, event: value } as LogRecord);
    if (poison.has(at))
      list.push({
        ...source,
        payload: Buffer.from([0, 0, 0, 0, 0]),
        offset: list.length,
        topic,
        event: null,
        key: null,
        bad: { reason: 'UNDECODABLE', detail: 'poison' },
      });
  }
  return { records, endMs: arrivals.at(-1)?.arrivesMs ?? 0 };
}

export interface Cut {
  offsets: Record<LogTopic, number>;
  metadata: Record<LogTopic, string>;
}

export interface Snapshot {
  files: Map<string, Buffer>;
  cold: SavedHistories;
  segments: Buffer[];
  offsets: Record<LogTopic, number>;
  watermarkMs: number;
}

export class Driver {
  readonly #log: Log;
  readonly #catalogue: Catalogue;
  readonly #rules: JoinRules;
  readonly #fetchedTo: Record<LogTopic, number>;
  readonly join: ByteJoin;
  readonly merge: InputMerge;
  readonly #disk: HistoryDisk;
  #beganMs = Number.NEGATIVE_INFINITY;

  /**
   * @param cut committed offsets to restore from
   * @param snapshot of an earlier cut
   */
  constructor(log: Log, catalogue: Catalogue, rules: JoinRules, cut?: Cut, nowMs = 0, snapshot?: Snapshot) {
    this.#log = log;
    this.#catalogue = catalogue;
    this.#rules = rules;
    this.#fetchedTo = cut ? { ...cut.offsets } : { exposures: 0, clicks: 0, buys: 0 };
    const meta = cut && byTopic((topic) => parseMetadata(cut.metadata[topic]));
    const watermarkMs = meta?.exposures.watermarkMs ?? 0;
    const start = {
      watermarkMs: snapshot?.watermarkMs ?? watermarkMs,
      ...(meta && { pins: allPins(meta) }),
    };
    const cache = testCache();
    this.#disk = cache.cold;
    this.join = new ByteJoin(0, rules, catalogue, start, cache);
    this.merge = new InputMerge(
      {
        outOfOrdernessMs: OUT_OF_ORDERNESS_MS,
        inputFreshnessMs: 1_000,
        maxDelayMs: MAX_DELAY_MS,
        startMs: watermarkMs,
      },
      this.#fetchedTo,
    );
    if (!cut || !meta) return;
    if (snapshot) {
      for (const [i, segment] of snapshot.cold.segments.entries())
        this.#disk.restore(segment, snapshot.segments[i]!);
      this.#disk.goOnAt(snapshot.cold.nextNumber);
      this.join.join.load(Sections.ofFiles(snapshot.files));
    }
    // Another order than the one in which they were read first, on purpose.
    for (const topic of ['buys', 'exposures', 'clicks'] as const)
      for (const record of log.records[topic].slice(snapshot?.offsets[topic] ?? 0, cut.offsets[topic])) {
        if (!snapshot && record.offset < meta[topic].restoreOffset) this.join.remember(record);
        else this.join.feed(record);
        if (record.event) this.merge.taken(topic, record.event.eventTimeMs, nowMs);
      }
    this.join.advance(watermarkMs);
    this.join.discardReplay();
  }

  restored(cut: Cut, nowMs: number): Driver {
    return new Driver(this.#log, this.#catalogue, this.#rules, cut, nowMs);
  }
  restoredFrom(snapshot: Snapshot, cut: Cut, nowMs: number): Driver {
    const driver = new Driver(this.#log, this.#catalogue, this.#rules, cut, nowMs, snapshot);
    for (const [i, topic] of LOG_TOPICS.entries())
      driver.merge.taken(topic, this.merge.watermark.newestMs(i), nowMs);
    return driver;
  }

  /** Of this moment. @returns gives it as files would hold it, whatever has come meanwhile */
  beginSnapshot(): () => Snapshot {
    const sections = new Sections();
    this.#disk.seal();
    this.join.join.save(sections, true);
    const cold = this.#disk.save();
    const { offsets } = this.cut();
    const { watermarkMs } = this.join;
    return () => {
      const segments = cold.segments.map(({ number }) => this.#disk.segmentBytes(number));
      const files = [...sections.files()].map(([name, pieces]): [string, Buffer] => [
        name,
        Buffer.concat(pieces),
      ]);
      this.join.join.thaw();
      this.#disk.release();
      return { files: new Map(files), cold, segments, offsets, watermarkMs };
    };
  }

  /** What was appended until nowMs comes, is joined, and moves the watermark. */
  poll(nowMs: number): void {
    for (const topic of LOG_TOPICS) {
      const all = this.#log.records[topic];
      const from = this.#fetchedTo[topic];
      let to = from;
      while (to < all.length && all[to]!.appendTimeMs <= nowMs) to++;
      this.#fetchedTo[topic] = to;
      this.merge.fetched({
        topic,
        records: passOver(all.slice(from, to)),
        nextOffset: to,
        highWatermark: to,
        sentAtMs: nowMs,
      });
    }
    for (let topic = this.merge.nextTopic(nowMs); topic; topic = this.merge.nextTopic(nowMs)) {
      const timeMs = this.join.feedView(topic, this.merge.peek(topic));
      if (timeMs !== null) this.merge.taken(topic, timeMs, nowMs);
      this.merge.drop(topic);
    }
    this.join.advance(this.merge.watermark.advance(nowMs, this.#beganMs));
    this.#beganMs = nowMs;
  }

  cut(): Cut {
    const offsets = byTopic((topic) => this.merge.nextOffset(topic));
    const { texts } = packPins(this.join.pins());
    return {
      offsets,
      metadata: byTopic((topic) =>
        formatMetadata(
          {
            watermarkMs: this.join.watermarkMs,
            restoreOffset: this.join.restoreOffset(topic, offsets[topic]),
            numPartitions: 1,
          },
          texts[topic],
        ),
      ),
    };
  }

  take(): JoinOutput[] {
    return this.join.takeOutputs();
  }
}

/** Moments of polls: random steps through the traffic, then silence until everything has closed. */
export function pollTimes(startMs: number, endMs: number, next: () => number): number[] {
  const times: number[] = [];
  for (let t = startMs; t < endMs; t += 1 + Math.floor(next() * 120)) times.push(t);
  const silentUntil = endMs + WINDOWS.knownSpanMs + MAX_DELAY_MS + 2_000;
  for (let t = endMs; t < silentUntil; t += 400) times.push(t);
  return times;
}

/** Outputs without what depends on when they left, in an order that does not either. */
export function normal(outputs: readonly JoinOutput[], withWatermark = false): string[] {
  return outputs
    .map((output) => {
      if (output.kind === 'dead')
        return `dead ${output.record.topic} ${output.record.offset} ${output.record.bad.reason}`;
      if (output.kind === 'late') {
        const { payload: _, watermarkMs, ...event } = output.event;
        return `late ${JSON.stringify(withWatermark ? { ...event, watermarkMs } : event)}`;
      }
      const { watermarkMs, ...sample } = canonical(output.sample);
      return `sample ${JSON.stringify(withWatermark ? { ...sample, watermarkMs } : sample)}`;
    })
    .sort();
}
