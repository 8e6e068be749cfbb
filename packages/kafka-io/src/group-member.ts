/**
 * kafkajs' consumer as a group member and nothing else: it joins, sends heartbeats and commits offsets; all topics stay
 * paused, and the records are read by the own data plane. Partition p of all topics goes to one member.
 */
import { AssignerProtocol, type Consumer, type Kafka, type PartitionAssigner } from 'kafkajs';
import { isPassing } from './brokers.ts';
import { KafkaIoError } from './errors.ts';
import type { LogWriter } from './log-writer.ts';
import { assignSticky } from './sticky-assignment.ts';

const PROTOCOL = 'onemall-co-partition';
const DEFAULT_SESSION_TIMEOUT_MS = 10_000;
/** kafkajs has tried for a quarter of a minute before it breaks down. */
const REJOIN_MS = 1_000;
/** Where no broker answers a member cannot leave; its session runs out instead. */
const STOP_WAIT_MS = 3_000;

export interface GroupMemberOptions {
  kafka: Kafka;
  log: LogWriter;
  groupId: string;
  /** Physical names. */
  topics: readonly string[];
  sessionTimeoutMs: number | undefined;
  /** Awaited before this member rejoins, at most for half the session timeout. */
  onRebalancing(): Promise<void>;
  /** The partition numbers that are this member's from now on; calls follow one another. */
  onOwned(partitions: readonly number[]): Promise<void>;
  onError(error: unknown): void;
}

export interface GroupMember {
  commit(offsets: readonly { topic: string; partition: number; offset: number }[]): Promise<void>;
  stop(): Promise<void>;
}

export async function joinGroup(options: GroupMemberOptions): Promise<GroupMember> {
  const member = new Member(options);
  await member.start();
  return member;
}

class Member implements GroupMember {
  readonly #options: GroupMemberOptions;
  readonly #consumer: Consumer;
  readonly #sessionTimeoutMs: number;
  /** What the group last gave to this member, and whether it still counts. */
  #owned: readonly number[] = [];
  #lost = true;
  #joined = false;
  #heardAtMs = 0;
  #watchdog: NodeJS.Timeout | undefined;
  #changes: Promise<void> = Promise.resolve();
  #running: Promise<void> = Promise.resolve();
  #stopping = false;
  #isJoiningAgain = false;

  constructor(options: GroupMemberOptions) {
    this.#options = options;
    this.#sessionTimeoutMs = options.sessionTimeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS;
    this.#consumer = options.kafka.consumer({
      groupId: options.groupId,
      partitionAssigners: [this.#assigner],
      sessionTimeout: this.#sessionTimeoutMs,
      rebalanceTimeout: Math.max(this.#sessionTimeoutMs, 30_000),
      heartbeatInterval: Math.min(1_000, Math.floor(this.#sessionTimeoutMs / 6)),
      // How often the paused member comes round to its heartbeat.
      maxWaitTimeInMs: Math.min(500, Math.floor(this.#sessionTimeoutMs / 12)),
      retry: {
        initialRetryTime: 100,
        maxRetryTime: 2_000,
        retries: 10,
        // kafkajs would come back up after it was told to stop while no broker answers.
        restartOnFailure: async () => !this.#stopping,
      },
    });
  }

  async start(): Promise<void> {
    const { events } = this.#consumer;
    this.#consumer.on(events.GROUP_JOIN, ({ payload }) => {
      // Before the first fetch of this generation: the listener runs while the member still joins.
      this.#consumer.pause(this.#options.topics.map((topic) => ({ topic })));
      this.#heardAtMs = performance.now();
      this.#joined = true;
      this.#lost = false;
      this.#owned = ownedNumbers(payload.memberAssignment);
      this.#announce();
    });
    this.#consumer.on(events.HEARTBEAT, () => {
      this.#heardAtMs = performance.now();
      if (!this.#lost || !this.#joined) return;
      this.#lost = false;
      this.#announce();
    });
    this.#consumer.on(events.CRASH, ({ payload }) => {
      this.#joined = false;
      this.#lose('the group member broke down');
      if (!payload.restart) this.#running = this.#joinAgain(payload.error);
    });
    this.#watchdog = setInterval(() => {
      if (performance.now() - this.#heardAtMs > this.#sessionTimeoutMs)
        this.#lose(`no heartbeat was answered for ${this.#sessionTimeoutMs} ms`);
    }, this.#sessionTimeoutMs / 4);
    await this.#connect();
    // Not awaited: the first join takes as long as the group needs to miss a member that was killed.
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    try {
      await this.#consumer.run({ autoCommit: false, eachBatch: async () => {} });
    } catch (error) {
      await this.#joinAgain(error);
    }
  }

  /** A coordinator that is not there counts with kafkajs as something that does not pass: here it is waited out. */
  async #joinAgain(error: unknown): Promise<void> {
    if (this.#stopping || this.#isJoiningAgain) return;
    if (!isPassing(error)) {
      this.#options.onError(error);
      return;
    }
    this.#isJoiningAgain = true;
    const { log, groupId } = this.#options;
    log.warn(`Group ${groupId} cannot be joined yet and is tried again: ${(error as Error).message}`);
    await new Promise((resolve) => setTimeout(resolve, REJOIN_MS));
    this.#isJoiningAgain = false;
    if (this.#stopping) return;
    try {
      await this.#connect();
    } catch (broken) {
      if (!this.#stopping) this.#options.onError(broken);
      return;
    }
    await this.#run();
  }

  async #connect(): Promise<void> {
    for (let backoffMs = 100; ; backoffMs = Math.min(2_000, backoffMs * 2)) {
      try {
        await this.#consumer.connect();
        return await this.#consumer.subscribe({ topics: [...this.#options.topics], fromBeginning: true });
      } catch (error) {
        if (this.#stopping || !isPassing(error)) throw error;
        this.#options.log.warn(`Group ${this.#options.groupId} waits for Kafka: ${(error as Error).message}`);
        await new Promise((resolve) => setTimeout(resolve, backoffMs));
      }
    }
  }

  /** Without an answer for a session others may own the partitions: stop working on them. */
  #lose(why: string): void {
    if (this.#lost) return;
    this.#lost = true;
    this.#options.log.warn(`Group ${this.#options.groupId} gives its partitions up for now: ${why}`);
    this.#announce();
  }

  #announce(): void {
    const owned = this.#lost ? [] : this.#owned;
    this.#changes = this.#changes.then(async () => {
      if (this.#stopping) return;
      try {
        await this.#options.onOwned(owned);
      } catch (error) {
        this.#options.onError(error);
      }
    });
  }

  readonly #assigner: PartitionAssigner = ({ cluster }) => {
    this.#rejoinWhenReady(cluster);
    return {
      name: PROTOCOL,
      version: 1,
      protocol: ({ topics }) => ({
        name: PROTOCOL,
        metadata: AssignerProtocol.MemberMetadata.encode({
          version: 1,
          topics,
          userData: Buffer.from(JSON.stringify(this.#lost ? [] : this.#owned)),
        }),
      }),
      assign: async ({ members, topics }) => {
        const counts = new Map(topics.map((t) => [t, cluster.findTopicPartitionMetadata(t).length]));
        const numPartitions = Math.max(...counts.values());
        const shares = assignSticky(
          numPartitions,
          members.map(({ memberId, memberMetadata }) => ({
            memberId,
            owned: claimed(AssignerProtocol.MemberMetadata.decode(memberMetadata)?.userData),
          })),
        );
        return [...shares].map(([memberId, mine]) => ({
          memberId,
          memberAssignment: AssignerProtocol.MemberAssignment.encode({
            version: 1,
            assignment: Object.fromEntries(topics.map((t) => [t, mine.filter((p) => p < counts.get(t)!)])),
            userData: Buffer.from(JSON.stringify(mine)),
          }),
        }));
      },
    };
  };

  /**
   * kafkajs rejoins at once when a rebalance begins. Looking up the coordinator is the first step of joining, so that
   * is where it waits until what is under way was committed.
   */
  #rejoinWhenReady(cluster: object): void {
    const joining = cluster as { findGroupCoordinator(of: unknown): Promise<unknown> };
    const find = joining.findGroupCoordinator.bind(cluster);
    joining.findGroupCoordinator = async (of) => {
      if (this.#joined && !this.#lost && !this.#stopping) {
        const ready = this.#options.onRebalancing().catch(this.#options.onError);
        await within(this.#sessionTimeoutMs / 2, ready);
      }
      return find(of);
    };
  }

  commit(offsets: readonly { topic: string; partition: number; offset: number }[]): Promise<void> {
    return this.#consumer.commitOffsets(offsets.map((o) => ({ ...o, offset: String(o.offset) })));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#watchdog);
    await this.#changes;
    // kafkajs cannot stop while it joins: a member that is told to would come up afterwards.
    await within(STOP_WAIT_MS, this.#running);
    await within(STOP_WAIT_MS, this.#consumer.disconnect());
  }
}

/** Resolves with the work, or without it when the time is up. */
async function within(limitMs: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, limitMs);
  });
  await Promise.race([work, limit]);
  clearTimeout(timer);
}

/** Union over the topics: a topic with fewer partitions than others has only part of the numbers. */
const ownedNumbers = (assignment: Record<string, number[]>): number[] =>
  [...new Set(Object.values(assignment).flat())].sort((a, b) => a - b);

function claimed(userData: Buffer | undefined): number[] {
  if (!userData || userData.length === 0) return [];
  try {
    const claim: unknown = JSON.parse(userData.toString());
    return Array.isArray(claim) ? claim.filter((p): p is number => Number.isInteger(p)) : [];
  } catch (cause) {
    throw new KafkaIoError(
      'A member of the group sent a claim that is not JSON: is another program in this group?',
      {
        cause,
      },
    );
  }
}
