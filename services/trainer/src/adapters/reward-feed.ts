/** Reads reward-batches and keeps the groups that wait for a step. */
import { BadRecordError, type RewardBatch, type TopicName } from '@onemall/contracts';
import { type KafkaIo, type LogReader, OffsetOutOfRangeError } from '@onemall/kafka-io';
import { isHeldBack, type Logger, type StageMeter } from '@onemall/service-kit';
import {
  byCreation,
  dropsGroup,
  type GroupDropped,
  type GroupRules,
  groupsForStep,
  type WaitingGroup,
} from '../stages/choose-groups.ts';
import type { GroupPlace } from '../stages/manifest.ts';
import type { DeadLetters } from './dead-letters.ts';

const REWARDS: TopicName = 'reward-batches';
const LONGEST_POLL_MS = 500;
/** Groups in memory: a wide beam with its history is about 100 KB. Older ones give way to newer. */
const MAX_WAITING = 512;

export interface RewardFeedOptions {
  io: KafkaIo;
  log: Logger;
  meter: StageMeter;
  deadLetters: DeadLetters;
  rules: GroupRules;
  heldBackFraction: number;
  maxPerStep: number;
  spreadSteps: number;
  rememberedRequests: number;
  resume: { positions: ReadonlyMap<number, number>; usedRequestIds: readonly string[] } | null;
  stopping: AbortSignal;
}

export class RewardFeed {
  readonly #options: RewardFeedOptions;
  readonly #reader: LogReader;
  /** Next record to read, by partition. */
  readonly #next: Map<number, number>;
  /** Ends at the start: until they are reached no step begins, so that a restart sees the groups that the steps before it saw. */
  readonly #firstEnds: ReadonlyMap<number, number>;
  #caughtUp = Promise.withResolvers<void>();
  #waiting: WaitingGroup[] = [];
  /** Insertion order is age. */
  readonly #used: Set<string>;

  private constructor(options: RewardFeedOptions, reader: LogReader, ends: ReadonlyMap<number, number>) {
    this.#options = options;
    this.#reader = reader;
    this.#firstEnds = ends;
    this.#next = new Map([...ends.keys()].map((p) => [p, options.resume?.positions.get(p) ?? 0]));
    this.#used = new Set(options.resume?.usedRequestIds ?? []);
  }

  static async open(options: RewardFeedOptions): Promise<RewardFeed> {
    const ends = new Map((await options.io.endOffsets(REWARDS)).map((e) => [e.partition, e.offset]));
    const reader = await options.io.openReader();
    const feed = new RewardFeed(options, reader, ends);
    await reader.assign(
      [...ends.keys()].map((partition) => ({
        topic: REWARDS,
        partition,
        offset: options.resume?.positions.get(partition) ?? -2,
      })),
    );
    return feed;
  }

  /** Resolves when everything that was in the topic at the start has been read. */
  get caughtUp(): Promise<void> {
    return this.#caughtUp.promise;
  }

  /** Reads until the service stops. */
  async run(): Promise<void> {
    const { stopping, log } = this.#options;
    while (!stopping.aborted) {
      try {
        for (const fetched of await this.#reader.poll({ maxWaitMs: LONGEST_POLL_MS, signal: stopping })) {
          for (const record of fetched.records) await this.#take(record);
          this.#next.set(fetched.partition, fetched.nextOffset);
        }
      } catch (error) {
        if (stopping.aborted) return;
        if (!(error instanceof OffsetOutOfRangeError) || !error.at) throw error;
        // Lost groups cost a little teaching, not a sample: go on.
        const { partition } = error.at;
        log.warn(
          { err: error, partition },
          'reward groups of a partition were lost to retention; it goes on from its earliest',
        );
        await this.#reader.assign([{ topic: REWARDS, partition, offset: -2 }]);
      }
      if ([...this.#firstEnds].every(([p, end]) => this.#next.get(p)! >= end)) this.#caughtUp.resolve();
    }
  }

  async #take(record: Parameters<KafkaIo['decode']>[1]): Promise<void> {
    const { io, deadLetters, meter } = this.#options;
    let group: RewardBatch | null;
    try {
      group = (await io.decode('reward-batches', record)).value;
    } catch (error) {
      if (!(error instanceof BadRecordError)) throw error;
      await deadLetters.send(record, error);
      return;
    }
    if (!group) return;
    meter.recordIn();
    const reason = this.#refuses(group);
    if (reason) return this.#dropped(reason);
    const { partition, offset } = record;
    const { requestId } = group;
    this.#waiting.push({ requestId, partition, offset, group });
    this.#waiting.sort(byCreation);
    while (this.#waiting.length > MAX_WAITING) {
      this.#waiting.shift();
      this.#dropped('too_many_waiting');
    }
  }

  #refuses(group: RewardBatch): GroupDropped | 'duplicate' | 'held_back' | null {
    const { requestId } = group;
    if (this.#used.has(requestId) || this.#waiting.some((w) => w.requestId === requestId)) return 'duplicate';
    return isHeldBack(requestId, this.#options.heldBackFraction) ? 'held_back' : null;
  }

  #dropped(reason: string): void {
    this.#options.meter.add('rl_groups_dropped');
    this.#options.meter.add(`rl_dropped_${reason}`);
  }

  /** Groups for a step, oldest first; those that may not train any more are dropped and counted. */
  takeFor(step: number): WaitingGroup[] {
    const { rules, maxPerStep, spreadSteps } = this.#options;
    this.#waiting = this.#waiting.filter(({ group }) => {
      const reason = dropsGroup(group, rules, step);
      if (reason) this.#dropped(reason);
      return reason === null;
    });
    const taken = this.#waiting.splice(0, groupsForStep(this.#waiting.length, maxPerStep, spreadSteps));
    for (const { requestId } of taken) this.#remember(requestId);
    return taken;
  }

  /** The groups that a manifest names; those that retention took away are left out with a warning. */
  takePlaces(places: readonly GroupPlace[]): WaitingGroup[] {
    const taken: WaitingGroup[] = [];
    for (const place of places) {
      const at = this.#waiting.findIndex((w) => w.partition === place.partition && w.offset === place.offset);
      if (at >= 0) taken.push(...this.#waiting.splice(at, 1));
      else
        this.#options.log.warn(
          place,
          'a reward group of a manifest is not retained any more: its step is repeated without it',
        );
      this.#remember(place.requestId);
    }
    return taken;
  }

  #remember(requestId: string): void {
    this.#used.add(requestId);
    if (this.#used.size > this.#options.rememberedRequests)
      this.#used.delete(this.#used.values().next().value!);
  }

  get waiting(): number {
    return this.#waiting.length;
  }
  usedRequestIds(): string[] {
    return [...this.#used];
  }
  /** Where reading stands: a resume from here finds none of the groups that came before, waiting or not. */
  readUpTo(): [partition: number, offset: number][] {
    return [...this.#next];
  }
  /** Where a resume must read from to find every group that still waits. */
  positions(): [partition: number, offset: number][] {
    return [...this.#next].map(([partition, next]) => [
      partition,
      this.#waiting.reduce(
        (least, w) => (w.partition === partition ? Math.min(least, w.offset) : least),
        next,
      ),
    ]);
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }
}
