/**
 * Snapshots of a partition's state in the artifact store. They bound how long taking over lasts; the log alone is always
 * enough, so one that is missing, damaged or of other rules is passed over with a line in the log and a count.
 */
import { avroType } from '@onemall/contracts';
import {
  type ArtifactStore,
  artifactSha256,
  artifactSha256InSlices,
  type Clock,
  type Logger,
  sizeOfFile,
} from '@onemall/service-kit';
import { letGo } from '../bytes/let-go.ts';
import { Sections } from '../bytes/sections.ts';
import type { JoinRules, PartitionJoin } from '../stages/join-partition.ts';
import { byTopic, LOG_TOPICS, type LogTopic } from '../stages/log-record.ts';
import type { InputMerge } from '../stages/take-in-order.ts';
import type { HistoryDisk, SavedHistories } from './history-disk.ts';
import type { JoinMeter } from './join-meter.ts';
import { offsetsWentBack, StartRefusedError } from './start-checks.ts';

/** Changes with everything that the bytes mean; others are passed over. */
const LAYOUT = 5;

export interface SnapshotDeps {
  artifacts: ArtifactStore;
  namespace: string;
  rules: JoinRules;
  openHistories: () => HistoryDisk;
  /** How many of each partition stay. */
  kept: number;
  clock: Clock;
  log: Logger;
  meter: JoinMeter;
}

/** What one transaction commits: everything joined up to these offsets. */
export interface Cut {
  /** Next offsets. */
  offsets: Readonly<Record<LogTopic, number>>;
  /** False where the transaction failed or its outcome is unknown. */
  isDurable: Promise<boolean>;
}

/** A snapshot that may be used. */
export interface FoundSnapshot {
  uri: string;
  sections: Sections;
  /** Next offsets: a replay goes on from there. */
  offsets: Record<LogTopic, number>;
  watermarkMs: number;
  /** The cold ones, as they were. */
  histories: HistoryDisk;
}

/** What a snapshot says of cold histories: their segments are artifacts of their own, which later snapshots share. */
interface SavedCold extends SavedHistories {
  /** In the order of the segments. */
  sha256s: string[];
}
const SEGMENT_FILE = 'segment';

export class Snapshots {
  readonly #deps: SnapshotDeps;
  readonly #rulesText: string;
  /** Segments of the snapshots that this instance wrote or found. */
  readonly #segmentsOf = new Map<string, readonly string[]>();
  /** sha256 of segments by number: they never change. */
  readonly #sums = new WeakMap<HistoryDisk, Map<number, string>>();

  constructor(deps: SnapshotDeps) {
    this.#deps = deps;
    const { windows, historyLength, emitPositives } = deps.rules;
    const schemas = ['Exposure', 'Click', 'Buy'].map((name) =>
      avroType(name).fingerprint('md5').toString('hex'),
    );
    const scenarios = Object.entries(windows.rules.scenarios); // their order gives them their numbers
    const { graceMs, outOfOrdernessMs } = windows.rules;
    this.#rulesText = JSON.stringify([
      LAYOUT,
      ...[schemas, scenarios, graceMs, outOfOrdernessMs, historyLength, emitPositives],
    ]);
  }

  #folder(partition: number): string {
    return `snapshots/${this.#deps.namespace}.sample-assembler/${partition}`;
  }
  #segmentFolder(partition: number): string {
    return `snapshots/${this.#deps.namespace}.sample-assembler/histories-${partition}`;
  }

  /**
   * Writes what the join is at this call, the moment of the cut. A failure is logged: the log is still there. Nothing of it
   * can be found before the cut is durable, nor ever where it is not.
   * @param goesOn whether the join is used again before this resolves; costs a copy of all but the slabs
   */
  async write(
    partition: number,
    { offsets, isDurable }: Cut,
    { join, merge, histories }: { join: PartitionJoin; merge: InputMerge; histories: HistoryDisk },
    goesOn: boolean,
  ): Promise<void> {
    const { artifacts, clock, log, meter } = this.#deps;
    const startedMs = clock.nowMs();
    try {
      const sections = new Sections();
      histories.mergeSmall();
      histories.seal();
      join.save(sections, goesOn);
      sections.facts.rules = this.#rulesText;
      sections.facts.offsets = offsets;
      sections.facts.newestMs = LOG_TOPICS.map((_, i) => finiteOrNull(merge.watermark.newestMs(i)));
      const cold = await this.#putSegments(partition, histories, histories.save());
      sections.facts.cold = cold;
      const files = sections.files();
      const sha256 = await artifactSha256InSlices(files);
      const name = `${String(startedMs).padStart(16, '0')}-${sha256}`;
      const uri = `${this.#folder(partition)}/${name}`;
      // Whoever goes on after a failed transaction may decide a last touch otherwise, and would come to these offsets too.
      if (!(await isDurable)) return;
      const sizeBytes = [...files.values()].reduce((sum, file) => sum + sizeOfFile(file), 0);
      await artifacts.put(uri, files, sha256);
      sections.letGoOfCopies();
      this.#segmentsOf.set(uri, cold.sha256s);
      await this.#prune(partition);
      meter.snapshotWritten(partition, { sizeBytes, tookMs: clock.nowMs() - startedMs });
    } catch (error) {
      if (!(await isDurable)) return; // its histories were closed with the state that was dropped
      meter.snapshotFailed();
      log.warn({ err: error, partition }, 'writing a snapshot failed; the one before it and the log remain');
    } finally {
      join.thaw();
      histories.release();
    }
  }

  /** Writes the segments that are not there yet, one at a time: they are as large as the disk allows. */
  async #putSegments(partition: number, histories: HistoryDisk, saved: SavedHistories): Promise<SavedCold> {
    const { artifacts } = this.#deps;
    const folder = this.#segmentFolder(partition);
    const known = this.#sumsOf(histories);
    const there = new Set(saved.segments.length > 0 ? await artifacts.list(folder) : []);
    const sums = new Map<number, string>();
    for (const { number } of saved.segments) {
      let sha256 = known.get(number);
      if (sha256 === undefined || !there.has(`${folder}/${sha256}`)) {
        const bytes = histories.segmentBytes(number);
        const files = new Map([[SEGMENT_FILE, bytes]]);
        sha256 = artifactSha256(files);
        await artifacts.put(`${folder}/${sha256}`, files, sha256);
        letGo(bytes);
      }
      sums.set(number, sha256);
    }
    this.#sums.set(histories, sums);
    return { ...saved, sha256s: [...sums.values()] };
  }

  #sumsOf(histories: HistoryDisk): ReadonlyMap<number, string> {
    return this.#sums.get(histories) ?? new Map();
  }

  /** @throws where a segment is missing or damaged */
  async #getSegments(partition: number, saved: SavedCold): Promise<HistoryDisk> {
    const { artifacts, openHistories } = this.#deps;
    const histories = openHistories();
    try {
      const sums = new Map<number, string>();
      for (const [i, segment] of saved.segments.entries()) {
        const sha256 = saved.sha256s[i]!;
        const files = await artifacts.get({ uri: `${this.#segmentFolder(partition)}/${sha256}`, sha256 });
        histories.restore(segment, files.get(SEGMENT_FILE)!);
        sums.set(segment.number, sha256);
      }
      histories.goOnAt(saved.nextNumber);
      this.#sums.set(histories, sums);
      return histories;
    } catch (error) {
      histories.close();
      throw error;
    }
  }

  async #prune(partition: number): Promise<void> {
    const { artifacts, kept } = this.#deps;
    const all = await artifacts.list(this.#folder(partition));
    const gone = all.slice(0, Math.max(0, all.length - kept));
    for (const uri of gone) {
      await artifacts.remove(uri);
      this.#segmentsOf.delete(uri);
    }
    const used = new Set<string>();
    for (const uri of all.slice(gone.length)) {
      const sums = this.#segmentsOf.get(uri);
      // Another owner's: what it needs is not known here. Some snapshots later it is gone.
      if (!sums) return;
      for (const sha256 of sums) used.add(sha256);
    }
    for (const uri of await artifacts.list(this.#segmentFolder(partition)))
      if (!used.has(uri.slice(uri.lastIndexOf('/') + 1))) await artifacts.remove(uri);
  }

  /** A partition begins anew: what was kept is of another life of the topics. */
  async removeAll(partition: number): Promise<void> {
    const { artifacts } = this.#deps;
    for (const folder of [this.#folder(partition), this.#segmentFolder(partition)])
      for (const uri of await artifacts.list(folder)) await artifacts.remove(uri);
  }

  /**
   * The newest valid one that `isUsable`. One past the committed offsets or watermark was named after its commit, so they went
   * back: it is removed where that is accepted.
   * @throws StartRefusedError where it is not
   */
  async newest(
    partition: number,
    committed: { offsets: Readonly<Record<LogTopic, number>>; watermarkMs: number; mayGoBack: boolean },
    isUsable: (offsets: Readonly<Record<LogTopic, number>>) => Promise<boolean>,
    stopping: AbortSignal,
  ): Promise<FoundSnapshot | null> {
    const { artifacts, log, meter } = this.#deps;
    for (const uri of (await artifacts.list(this.#folder(partition))).toReversed()) {
      try {
        const sha256 = uri.slice(uri.lastIndexOf('-') + 1);
        const sections = Sections.ofFiles(await artifacts.get({ uri, sha256 }));
        const rules = sections.fact<string>('rules');
        const offsets = byTopic((topic) => sections.fact<Record<LogTopic, number>>('offsets')[topic]);
        const watermarkMs = sections.fact<number>('watermarkMs');
        const isPast =
          watermarkMs > committed.watermarkMs ||
          LOG_TOPICS.some((topic) => offsets[topic] > committed.offsets[topic]);
        if (isPast && !committed.mayGoBack) throw offsetsWentBack(partition, committed.offsets, uri, offsets);
        if (isPast) {
          // Offsets to come will pass it, and it knows other decisions than theirs.
          log.warn({ partition, uri }, 'a snapshot past the committed offsets is removed');
          await artifacts.remove(uri);
        } else if (rules !== this.#rulesText)
          log.info({ partition, uri }, 'a snapshot of other rules or another layout is passed over');
        else if (await isUsable(offsets)) {
          const cold = sections.fact<SavedCold>('cold');
          const histories = await this.#getSegments(partition, cold);
          this.#segmentsOf.set(uri, cold.sha256s);
          return { uri, sections, offsets, watermarkMs, histories };
        }
      } catch (error) {
        stopping.throwIfAborted();
        if (error instanceof StartRefusedError) throw error;
        meter.snapshotRefused();
        log.warn(
          { err: error, partition, uri },
          'a snapshot cannot be used; an older one or the log takes its place',
        );
      }
    }
    return null;
  }
}

/** Puts a snapshot into a join and a merge that were fed nothing yet. */
export function loadSnapshot(
  { sections }: FoundSnapshot,
  join: PartitionJoin,
  merge: InputMerge,
  nowMs: number,
): void {
  join.load(sections);
  const newestMs = sections.fact<(number | null)[]>('newestMs');
  for (const [i, topic] of LOG_TOPICS.entries())
    if (newestMs[i] !== null && newestMs[i] !== undefined) merge.taken(topic, newestMs[i], nowMs);
}

const finiteOrNull = (ms: number): number | null => (Number.isFinite(ms) ? ms : null);
