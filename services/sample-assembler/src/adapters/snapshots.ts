/**
 * Snapshots of a partition's state in the artifact store. They bound how long taking over lasts; the log alone is always
 * enough, so one that is missing, damaged or of other rules is passed over with a line in the log and a count.
 */
import { avroType } from '@onemall/contracts';
import { type ArtifactStore, artifactSha256, type Clock, type Logger } from '@onemall/service-kit';
import { Sections } from '../bytes/sections.ts';
import type { JoinRules, PartitionJoin } from '../stages/join-partition.ts';
import { byTopic, LOG_TOPICS, type LogTopic } from '../stages/log-record.ts';
import type { InputMerge } from '../stages/take-in-order.ts';
import type { JoinMeter } from './join-meter.ts';

/** Changes with everything that the bytes mean; others are passed over. */
const LAYOUT = 1;

export interface SnapshotDeps {
  artifacts: ArtifactStore;
  namespace: string;
  rules: JoinRules;
  /** How many of each partition stay. */
  kept: number;
  clock: Clock;
  log: Logger;
  meter: JoinMeter;
}

/** A snapshot that may be used. */
export interface FoundSnapshot {
  uri: string;
  sections: Sections;
  /** Next offsets: a replay goes on from there. */
  offsets: Record<LogTopic, number>;
  watermarkMs: number;
}

export class Snapshots {
  readonly #deps: SnapshotDeps;
  readonly #rulesText: string;

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

  /** The join must stand still until this resolves. A failure is logged: the log is still there. */
  async write(
    partition: number,
    offsets: Readonly<Record<LogTopic, number>>,
    join: PartitionJoin,
    merge: InputMerge,
  ): Promise<void> {
    const { artifacts, clock, log, meter } = this.#deps;
    const startedMs = clock.nowMs();
    try {
      const sections = new Sections();
      join.save(sections);
      sections.facts.rules = this.#rulesText;
      sections.facts.offsets = offsets;
      sections.facts.newestMs = LOG_TOPICS.map((_, i) => finiteOrNull(merge.watermark.newestMs(i)));
      const files = sections.files();
      const sha256 = artifactSha256(files);
      const name = `${String(startedMs).padStart(16, '0')}-${sha256}`;
      await artifacts.put(`${this.#folder(partition)}/${name}`, files, sha256);
      await this.#prune(partition);
      const sizeBytes = [...files.values()].flat().reduce((sum, piece) => sum + piece.length, 0);
      meter.snapshotWritten(partition, { sizeBytes, tookMs: clock.nowMs() - startedMs });
    } catch (error) {
      meter.snapshotFailed();
      log.warn({ err: error, partition }, 'writing a snapshot failed; the one before it and the log remain');
    }
  }

  async #prune(partition: number): Promise<void> {
    const { artifacts, kept } = this.#deps;
    const all = await artifacts.list(this.#folder(partition));
    for (const uri of all.slice(0, Math.max(0, all.length - kept))) await artifacts.remove(uri);
  }

  /** A partition begins anew: what was kept is of another life of the topics. */
  async removeAll(partition: number): Promise<void> {
    const { artifacts } = this.#deps;
    for (const uri of await artifacts.list(this.#folder(partition))) await artifacts.remove(uri);
  }

  /** The newest valid one that is not past the committed offsets and watermark, and that `isUsable`. */
  async newest(
    partition: number,
    committed: { offsets: Readonly<Record<LogTopic, number>>; watermarkMs: number },
    isUsable: (offsets: Readonly<Record<LogTopic, number>>) => Promise<boolean>,
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
        if (rules !== this.#rulesText)
          log.info({ partition, uri }, 'a snapshot of other rules or another layout is passed over');
        else if (!isPast && (await isUsable(offsets))) return { uri, sections, offsets, watermarkMs };
      } catch (error) {
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
