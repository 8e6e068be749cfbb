/**
 * consumes         rollouts (group <namespace>.reward-scorer); items, live-sids and policy-versions (key RANKER) as tables;
 *                  with rankerUrl a ranker over HTTP in place of the published one
 * produces         reward-batches (key requestId), dead-letters
 * waits for        at start: the end of the tables; before the first rollout: the first ranker (rollouts wait in their topic)
 * is unblocked by  the first ranker publication that loads, or the first answer of the ranker over HTTP
 * commits when     the reward batches of the rollouts are durable. A crash in between scores them again under the same keys
 */
import { BadRecordError, type Rollout } from '@onemall/contracts';
import type { KafkaIo, OutRecord, RecordWriter, RunningConsumer, TypedRecord } from '@onemall/kafka-io';
import type { Clock, Logger, StageMeter } from '@onemall/service-kit';
import type { ScorerConfig } from './config.ts';
import { RankerRefusedError, RankerReplacedError, type RankerSource, type ScorerRanker } from './ranker.ts';
import { checkRollout } from './stages/check-rollout.ts';
import { joinRows, splitByRows } from './stages/join-rows.ts';
import { type RankerRows, rankerRows, scoreGroup } from './stages/score-candidates.ts';
import type { ItemFacts } from './state/item-facts.ts';

export interface ScorerParts {
  kafka: KafkaIo;
  config: ScorerConfig;
  clock: Clock;
  log: Logger;
  meter: StageMeter;
  stopping: AbortSignal;
  fail: (error: unknown) => void;
  rankers: RankerSource;
  facts: ItemFacts;
}

/** Item versions older than this before the newest rollout are forgotten. */
const ITEM_HISTORY_MS = 3_600_000;
const FORGET_EVERY_MS = 60_000;
const GAUGE_MS = 1_000;
const NO_SCORES = {
  pCtr: new Float32Array(0),
  pCtcvr: new Float32Array(0),
  buyValueCents: new Float32Array(0),
};

export async function runScoring(parts: ScorerParts): Promise<{ stop(): Promise<void> }> {
  const { kafka, config, meter, stopping, rankers, fail } = parts;
  const groupId = `${config.namespace}.reward-scorer`;
  const flow = new ScoringFlow(parts, await kafka.openWriter());
  let consumer: RunningConsumer | undefined;

  const consumeOnceRanked = async (): Promise<void> => {
    const stopped = new Promise<void>((resolve) =>
      stopping.addEventListener('abort', () => resolve(), { once: true }),
    );
    await Promise.race([rankers.firstLoaded, stopped]);
    if (stopping.aborted) return;
    consumer = await kafka.consume({
      groupId,
      topics: ['rollouts'],
      from: 'earliest',
      // a batch that waits for a ranker is given up when the service stops; its rollouts are read again
      onError: (error) => {
        if (!stopping.aborted) fail(error);
      },
      onDeadLetter: (reason) => meter.recordDeadLetter(reason),
      handler: { onRecords: (records) => flow.take(records) },
    });
  };
  const consuming = consumeOnceRanked().catch(fail);
  const lag = async (): Promise<number> => (consumer ? consumer.lag() : waitingRollouts(kafka, groupId));
  const reporting = reportUntilStopped(parts, lag).catch(fail);
  return {
    async stop() {
      await consuming;
      await consumer?.stop();
      await reporting;
      await flow.close();
    },
  };
}

interface Group extends RankerRows {
  record: TypedRecord<'rollouts'>;
}

class ScoringFlow {
  readonly #parts: ScorerParts;
  readonly #writer: RecordWriter;
  #newestRequestMs = 0;

  constructor(parts: ScorerParts, writer: RecordWriter) {
    this.#parts = parts;
    this.#writer = writer;
  }

  async take(records: readonly TypedRecord<'rollouts'>[]): Promise<void> {
    const { config, facts, meter } = this.#parts;
    meter.recordIn(records.length);
    const groups: Group[] = [];
    for (const record of records) {
      const rollout = await this.#usable(record);
      if (rollout)
        groups.push({ record, ...rankerRows(rollout, (itemId, timeMs) => facts.asOf(itemId, timeMs)) });
    }
    for (const batch of splitByRows(groups, config.rankerBatchRows)) await this.#score(batch);
    this.#forgetOldFacts();
  }

  #forgotMs = 0;
  #forgetOldFacts(): void {
    const nowMs = this.#parts.clock.nowMs();
    if (nowMs - this.#forgotMs < FORGET_EVERY_MS) return;
    this.#forgotMs = nowMs;
    this.#parts.facts.forgetBefore(this.#newestRequestMs - ITEM_HISTORY_MS);
  }

  /** The newest ranker scores several groups at once; one that it refuses becomes a dead letter, the others go on. */
  async #score(groups: readonly Group[]): Promise<void> {
    const lease = this.#parts.rankers.acquire();
    // the consumer starts after the first ranker, and a ranker is only ever replaced
    if (!lease) throw new Error('Rollouts are consumed before a ranker is loaded');
    try {
      await this.#scoreWith(lease.model, groups);
    } catch (error) {
      if (error instanceof RankerReplacedError) return await this.#score(groups);
      if (!(error instanceof RankerRefusedError)) throw error;
      if (groups.length > 1) for (const group of groups) await this.#score([group]);
      else await this.#bury(groups[0]!.record, new BadRecordError('REFUSED_BY_RANKER', error.message));
    } finally {
      lease.release();
    }
  }

  /** One call of the ranker for several groups, then their batches become durable. */
  async #scoreWith(ranker: ScorerRanker, groups: readonly Group[]): Promise<void> {
    const { clock, config, meter } = this.#parts;
    const { dense, ids, numRows, starts } = joinRows(groups);
    const scores = numRows > 0 ? await ranker.score(dense, ids, numRows) : NO_SCORES;
    meter.add('candidates_scored', numRows);
    const weights = { alpha: config.rewardAlpha, beta: config.rewardBeta, gamma: config.rewardGamma };
    const out: OutRecord<'reward-batches'>[] = [];
    for (const [i, group] of groups.entries()) {
      const options = { weights, maxAdvantage: config.maxAdvantage, createdMs: clock.nowMs() };
      const result = scoreGroup(group, scores, starts[i]!, ranker.identity, options);
      if ('skipped' in result) {
        meter.add(`groups_skipped_${result.skipped}`);
        continue;
      }
      meter.add('candidates_without_item', result.withoutItem);
      meter.add('candidates_duplicate', result.duplicates);
      meter.set('reward_mean', result.batch.rewardMean);
      meter.set('reward_std', result.batch.rewardStd);
      out.push({ topic: 'reward-batches', key: result.batch.requestId, value: result.batch });
    }
    if (out.length === 0) return;
    await this.#writer.send(out);
    meter.recordOut(out.length);
    for (const { value } of out) meter.recordLatency(Math.max(0, clock.nowMs() - value!.rolloutCreatedMs));
  }

  async #usable(record: TypedRecord<'rollouts'>): Promise<Rollout | undefined> {
    const { clock, config, meter } = this.#parts;
    const rollout = record.value;
    if (rollout === null) return undefined;
    try {
      checkRollout(record.key, rollout);
    } catch (error) {
      if (!(error instanceof BadRecordError)) throw error;
      await this.#bury(record, error);
      return undefined;
    }
    if (clock.nowMs() - rollout.createdMs > config.maxRolloutAgeMs) {
      meter.add('rollouts_too_old');
      return undefined;
    }
    this.#newestRequestMs = Math.max(this.#newestRequestMs, rollout.requestTimeMs);
    return rollout;
  }

  async #bury(record: TypedRecord<'rollouts'>, error: BadRecordError): Promise<void> {
    const { kafka, meter } = this.#parts;
    const value = await kafka.encode('rollouts', record.value!);
    const raw = { ...record, key: Buffer.from(record.key), value };
    await this.#writer.send([kafka.deadLetter(raw, error)]);
    meter.recordDeadLetter(error.reason);
  }

  async close(): Promise<void> {
    await this.#writer.close();
  }
}

/** Records behind the end while nobody consumes yet. */
async function waitingRollouts(kafka: KafkaIo, groupId: string): Promise<number> {
  const ends = await kafka.endOffsets('rollouts');
  const committed = await kafka.committed(groupId, ends);
  const done = new Map(committed.map(({ partition, offset }) => [partition, Math.max(0, offset)]));
  return ends.reduce((lag, { partition, offset }) => lag + offset - (done.get(partition) ?? 0), 0);
}

async function reportUntilStopped(parts: ScorerParts, lag: () => Promise<number>): Promise<void> {
  const { clock, facts, meter, rankers, stopping } = parts;
  while (!stopping.aborted) {
    meter.setLag(await lag());
    const lease = rankers.acquire();
    lease?.release();
    meter.set('ranker_loaded', lease ? 1 : 0);
    meter.set('catalogue_items', facts.numItems);
    // stopping ends the sleep early
    await clock.sleep(GAUGE_MS, stopping).catch(() => {});
  }
}
