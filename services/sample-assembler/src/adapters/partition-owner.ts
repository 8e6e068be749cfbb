/**
 * Owns one partition number of the three logs for as long as the group gives it to this instance: takes it over, drops
 * its state after a failed or unknown commit, takes it over anew, and lets go.
 */
import { FencedError, type FetchedPartition } from '@onemall/kafka-io';
import { LOG_TOPICS } from '../stages/log-record.ts';
import { LivePartition } from './live-partition.ts';
import { StartRefusedError } from './start-checks.ts';
import { type TakeOverDeps, takeOver } from './take-over.ts';

const RETRY_MS = 1_000;

export interface OwnerDeps extends TakeOverDeps {
  /** For what no retry can mend. */
  fail: (error: unknown) => void;
}

export class PartitionOwner {
  readonly partition: number;
  readonly #deps: OwnerDeps;
  readonly #closing = new AbortController();
  #live: LivePartition | null = null;
  #opening: Promise<void> = Promise.resolve();

  constructor(partition: number, deps: OwnerDeps) {
    this.partition = partition;
    this.#deps = deps;
  }

  get isLive(): boolean {
    return this.#live !== null;
  }
  /** Whether much of its logs is still to be joined. */
  get isBehind(): boolean {
    return this.#live?.isBehind ?? true;
  }
  /** The oldest moment that samples ask the catalogue for; null where that is not known. */
  get neededFromMs(): number | null {
    return this.#live?.neededFromMs ?? null;
  }

  /** Takes the partition over, however long brokers are away. @throws StartRefusedError */
  open(): Promise<void> {
    this.#opening = this.#openWithRetry();
    return this.#opening;
  }

  async #openWithRetry(): Promise<void> {
    const { log, clock, meter } = this.#deps;
    if (!this.#closing.signal.aborted) meter.takingOver(this.partition);
    while (!this.#closing.signal.aborted) {
      try {
        const taken = await takeOver(this.partition, this.#deps, this.#closing.signal);
        const live: LivePartition = new LivePartition(this.partition, taken, this.#deps, (error) =>
          this.#dropState(live, error),
        );
        this.#live = live;
        return;
      } catch (error) {
        if (this.#closing.signal.aborted) return;
        if (error instanceof StartRefusedError) throw error;
        log.warn({ err: error, partition: this.partition }, 'taking the partition over failed; trying again');
        await clock.sleep(RETRY_MS, this.#closing.signal).catch(() => {});
      }
    }
  }

  async take(fetched: readonly FetchedPartition[]): Promise<void> {
    await this.#live?.take(fetched);
  }
  /** @returns whether there is more to join at once */
  join(beganMs: number): boolean {
    return this.#live?.join(beganMs) ?? false;
  }
  uncovered(): (() => void) | null {
    return this.#live?.uncovered() ?? null;
  }
  commitWhenDue(): void {
    this.#live?.commitWhenDue();
  }
  async flush(): Promise<void> {
    await this.#live?.flush();
  }

  /** A commit failed or its outcome is unknown: what it left behind is found out by taking over anew. */
  #dropState(live: LivePartition, error: unknown): void {
    const { log, clock, config, meter, fail } = this.#deps;
    if (this.#live !== live) return;
    this.#live = null;
    meter.aborted(this.partition);
    this.#unassign();
    if (this.#closing.signal.aborted) return;
    meter.takingOver(this.partition);
    log.warn({ err: error, partition: this.partition }, 'commit failed: the state is dropped and rebuilt');
    void (async () => {
      await live.close().catch(() => {});
      // A newer owner has the partition: the group will say so soon. Fencing it back at once would only go on and on.
      // Any other failure may repeat: a pause keeps it from becoming a storm of replays.
      const pauseMs = error instanceof FencedError ? config.sessionTimeoutMs : RETRY_MS;
      await clock.sleep(pauseMs, this.#closing.signal).catch(() => {});
      await this.open();
    })().catch(fail);
  }

  /** Commits for the last time: whoever comes next may have the partition now. */
  async finish(): Promise<void> {
    await this.#live?.finish();
  }

  /** Commits, leaves a snapshot and lets go. */
  async close(): Promise<void> {
    await this.finish();
    this.#closing.abort(new Error(`partition ${this.partition} is given up`));
    await this.#opening.catch(() => {}); // its caller has the error; here only that it no longer assigns matters
    const live = this.#live;
    this.#live = null;
    this.#unassign();
    this.#deps.meter.forget(this.partition);
    await live?.close();
  }

  #unassign(): void {
    this.#deps.reader.unassign(LOG_TOPICS.map((topic) => ({ topic, partition: this.partition })));
  }
}
