/** The sample assembler under faults: a scene whose instances each stand behind a proxy of their own. */
import assert from 'node:assert/strict';
import type { TopicName } from '@onemall/contracts';
import type { AnyOutRecord, Position } from '@onemall/kafka-io';
import { KafkaProxy, type SpawnedService, type TestStack, waitFor } from '@onemall/testkit';
import type { Verdict } from '../../services/sample-assembler/oracle/verify.ts';
import { Scene } from '../../services/sample-assembler/test/scene.ts';
import type { Arrival } from '../../services/sample-assembler/test/traffic.ts';

export const NUM_PARTITIONS = 4;
export const LOGS = ['exposures', 'clicks', 'buys'] as const;
/** Shares of the samples whose labels, and of the histories that, were held against bounds alone. */
export interface Unsure {
  labels: number;
  histories: number;
}

export function unsureOf(verdicts: readonly Verdict[]): Unsure {
  const sum = (of: (verdict: Verdict) => number): number => verdicts.reduce((n, v) => n + of(v), 0);
  const numUnsure = sum((v) => v.unsureHistories);
  return {
    labels: sum((v) => v.unsureLabels) / sum((v) => v.finals + v.positives),
    histories: numUnsure / (numUnsure + sum((v) => v.exactHistories)),
  };
}

/**
 * Every history was judged, and what is held against bounds alone stays a part of all. The parts are large, since tests send
 * a minute of events within seconds: events that far apart may then have been read in any order.
 */
export function assertJudged(verdicts: readonly Verdict[], most: Unsure): void {
  for (const v of verdicts)
    assert.equal(v.unsureHistories + v.exactHistories, LOGS.length * (v.finals + v.positives));
  const { labels, histories } = unsureOf(verdicts);
  assert.ok(
    labels <= most.labels && histories <= most.histories,
    `${labels} of the samples' labels and ${histories} of the histories are held against bounds alone`,
  );
}

/** Further than any record is needed: what came before is closed, ended and forgotten. */
const CLOSING_MS = 12_000;
const SLICE_MS = 200;

export interface Instance extends SpawnedService {
  proxy: KafkaProxy;
  /** Paused as by a scheduler that forgot it; `resume` wakes it. */
  pause(): void;
  resume(): void;
}

export class Lab {
  readonly scene: Scene;
  readonly #stack: TestStack;
  readonly #instances = new Set<Instance>();
  /** How instances ended that did so by themselves or were ended, last lines of their logs included. */
  readonly #endings: string[] = [];
  #newestMs = 0;
  #numClosers = 0;

  private constructor(stack: TestStack, scene: Scene) {
    this.#stack = stack;
    this.scene = scene;
  }

  static async create(stack: TestStack, env: Record<string, string> = {}): Promise<Lab> {
    const scene = await Scene.create(stack);
    Object.assign(scene.env, { ONEMALL_SESSION_TIMEOUT_MS: '3000', ...env });
    return new Lab(stack, scene);
  }

  get instances(): readonly Instance[] {
    return [...this.#instances];
  }
  get groupId(): string {
    return `${this.scene.env.ONEMALL_NAMESPACE}.sample-assembler`;
  }
  physical(topic: TopicName): string {
    return `${this.scene.env.ONEMALL_NAMESPACE}.${topic}`;
  }

  async start(env: Record<string, string> = {}): Promise<Instance> {
    const proxy = await KafkaProxy.start(this.#stack.brokers);
    const service = await this.scene.startInstance({ ONEMALL_KAFKA_BROKERS: proxy.address, ...env });
    const signal = (name: NodeJS.Signals): void => {
      if (this.#instances.has(instance)) process.kill(service.pid, name);
    };
    const instance: Instance = {
      ...service,
      proxy,
      pause: () => signal('SIGSTOP'),
      resume: () => signal('SIGCONT'),
    };
    this.#instances.add(instance);
    void service.exited.then(async ({ code, signal }) => {
      this.#instances.delete(instance);
      this.#endings.push(`an instance ended with ${signal ?? `code ${code}`}:\n${service.logTail(8)}`);
      await proxy.close();
    });
    return instance;
  }

  /** Starts an instance and waits until it owns all partitions. */
  async startAlone(env: Record<string, string> = {}): Promise<Instance> {
    const instance = await this.start(env);
    await this.owns(instance, NUM_PARTITIONS);
    return instance;
  }

  async owns(instance: Instance, count: number): Promise<void> {
    await waitFor(
      async () => (await instance.status().catch(() => null))?.values.partitions_owned === count,
      {
        what: `${count} partitions at one instance`,
        timeoutMs: 90_000,
        check: () => {
          if (!this.#instances.has(instance)) throw new Error(`The instance ended: ${instance.logTail()}`);
        },
      },
    ).catch(async (error: Error) => {
      const status = await instance.status().catch((cause: Error) => cause.message);
      throw new Error(`${error.message}; ${JSON.stringify(status)}\n${this.stories(20)}`);
    });
  }

  /**
   * Sends events in order of arrival, a slice at a time: what the logs see then is never more than a slice further out of
   * order than the traffic was made.
   * @param between called after each slice with the number of events sent
   */
  async send(
    arrivals: readonly Arrival[],
    between: (sent: number) => Promise<void> = async () => {},
  ): Promise<void> {
    for (let at = 0; at < arrivals.length; ) {
      let end = at;
      while (end < arrivals.length && arrivals[end]!.arrivesMs < arrivals[at]!.arrivesMs + SLICE_MS)
        this.#newestMs = Math.max(this.#newestMs, arrivals[end++]!.value.eventTimeMs);
      const slice = arrivals.slice(at, end);
      await this.scene.writer.send(
        slice.map(({ topic, value }) => ({ topic, key: value.userId, value }) as AnyOutRecord),
      );
      at = end;
      await between(at);
    }
  }

  /** Waits until something of these was committed. */
  async someOut(atLeast = 1): Promise<void> {
    await waitFor(async () => (await this.numSamples()) >= atLeast, {
      what: `${atLeast} samples`,
      timeoutMs: 60_000,
    });
  }

  /** End offsets of the samples, markers of transactions included. */
  async numSamples(): Promise<number> {
    return (await this.scene.io.endOffsets('training-samples')).reduce((n, p) => n + p.offset, 0);
  }

  /** Events that came after their exposure had closed; orphans are others. */
  async numLate(): Promise<number> {
    const late = await this.scene.read('late-events');
    return late.filter((record) => record.value?.reason === 'LATE').length;
  }

  committed(): Promise<Position[]> {
    return this.scene.io.committed(
      this.groupId,
      LOGS.flatMap((topic) =>
        Array.from({ length: NUM_PARTITIONS }, (_, partition) => ({ topic, partition })),
      ),
      { settled: false },
    );
  }

  /** Committed watermark of each partition. */
  async watermarks(): Promise<number[]> {
    return (await this.committed())
      .filter((p) => p.topic === 'exposures')
      .map((p) => Number(p.metadata?.split(',')[0] || 0));
  }

  /** Sends one exposure to each partition, late enough to close all before it, and waits until everything is committed. */
  async settle(timeoutMs = 90_000): Promise<void> {
    const closingMs = this.#newestMs + CLOSING_MS;
    this.#newestMs = closingMs;
    const round = this.#numClosers++;
    const closers = Array.from({ length: NUM_PARTITIONS }, (_, partition) => ({
      topic: 'exposures' as const,
      key: `closer-${partition}`,
      partition,
      value: {
        exposureId: `closer-${partition}-${round}`,
        userId: `closer-${partition}`,
        itemId: 'item-1',
        scenario: 'product_card',
        eventTimeMs: closingMs,
        requestId: `closing-${partition}-${round}`,
        requestTimeMs: closingMs,
        position: 0,
        watchMs: null,
        priceCents: 1,
        requestFeatures: { ints: [], floats: [] },
      },
    }));
    await this.scene.writer.send(closers);
    const ends = (await Promise.all(LOGS.map((topic) => this.scene.io.endOffsets(topic)))).flat();
    const outOfOrdernessMs = Number(this.scene.env.ONEMALL_OUT_OF_ORDERNESS_MS);
    let last = '';
    await waitFor(
      async () => {
        const committed = await this.committed();
        const behind = ends.filter(
          (end) =>
            (committed.find((c) => c.topic === end.topic && c.partition === end.partition)?.offset ?? -1) <
            end.offset,
        );
        const marks = await this.watermarks();
        last = `${behind.map((b) => `${b.topic}-${b.partition}`)}; watermarks ${marks.map((w) => w - closingMs)}`;
        return behind.length === 0 && marks.every((w) => w >= closingMs - outOfOrdernessMs);
      },
      { what: 'everything to be committed', timeoutMs, intervalMs: 100 },
    ).catch((error: Error) => {
      throw new Error(`${error.message}; behind: ${last}\n${this.stories(8)}`);
    });
  }

  /** What instances wrote last, those that ended too. */
  stories(lines: number): string {
    const running = this.instances.map((i) => `an instance runs:\n${i.logTail(lines)}`);
    return [...this.#endings, ...running].join('\n---\n');
  }

  verdict(timeoutMs?: number): Promise<Verdict> {
    return this.scene.verify(timeoutMs);
  }

  async close(): Promise<void> {
    for (const instance of this.#instances) instance.resume();
    await Promise.all([...this.#instances].map((instance) => instance.kill()));
    await this.scene.close();
  }
}
