/**
 * consumes         training-samples (group <namespace>.retriever); policy-versions (key RETRIEVER), items, item-sids and
 *                  live-sids as tables, every record by every replica
 * produces         rollouts (key requestId), retrieval-metrics, dead-letters; HTTP POST /retrieve
 * waits for        at start: the end of the tables. Never for a policy: HTTP says 503 and samples pass until there is one
 * is unblocked by  the first publication that loads
 * commits when     the rollouts of a batch of samples are durable. A crash in between makes them again under the same keys
 */
import { BadRecordError, type TrainingSample } from '@onemall/contracts';
import type { KafkaIo, OutRecord, RecordWriter, TypedRecord } from '@onemall/kafka-io';
import { type Clock, hashFraction, type Logger, type StageMeter } from '@onemall/service-kit';
import type { AdmissionGate } from './adapters/admission-gate.ts';
import type { Policies } from './adapters/policy-source.ts';
import type { RetrieverConfig } from './config.ts';
import { type LoadedPolicy, NothingToServeError, type Retrieval } from './retrieval.ts';
import { buildRollout } from './stages/build-rollout.ts';
import { checkSample } from './stages/check-sample.ts';
import { HIT_RATE_AT, HitSums } from './stages/measure-hits.ts';
import { RateBudget, RecentIds, SlidingShare, selectRequest } from './stages/select-requests.ts';
import { firstItem } from './stages/serve-items.ts';
import { ReferencePolicy } from './state/reference-policy.ts';
import type { SidCatalogue } from './state/sid-catalogue.ts';

export interface RetrieverParts {
  kafka: KafkaIo;
  config: RetrieverConfig;
  clock: Clock;
  log: Logger;
  meter: StageMeter;
  stopping: AbortSignal;
  fail: (error: unknown) => void;
  policies: Policies;
  catalogue: SidCatalogue;
  retrieval: Retrieval;
  /** Searches of rollouts and measurements give way to those of HTTP. */
  gate: AdmissionGate;
}

/** Versions of SIDs older than this before the newest request are forgotten. */
const SID_HISTORY_MS = 3_600_000;
const FORGET_EVERY_MS = 60_000;
const REQUESTS_REMEMBERED = 100_000;
/** The share of rollouts over the budget is that of so long a time; above this much of them an alert says so. */
const DROPPED_WINDOW_MS = 60_000;
const MOST_DROPPED = 0.2;

/** A whole number below 2^32 from a request's id. */
const drawSeed = (requestId: string): number => Math.floor(hashFraction(requestId, 1) * 2 ** 32);

export async function runSampleFlow(parts: RetrieverParts): Promise<{ stop(): Promise<void> }> {
  const { kafka, config, meter, fail } = parts;
  const flow = new SampleFlow(parts, await kafka.openWriter());
  const consumer = await kafka.consume({
    groupId: `${config.namespace}.retriever`,
    topics: ['training-samples'],
    from: 'earliest',
    onError: fail,
    onDeadLetter: (reason) => meter.recordDeadLetter(reason),
    handler: { onRecords: (records) => flow.take(records) },
  });
  // shown as 0 rather than missing until there is one
  for (const name of ['http_requests', 'rollouts', 'shed_rollouts', 'measured_requests']) meter.add(name, 0);
  const reporting = flow.reportUntilStopped(() => consumer.lag()).catch(fail);
  return {
    async stop() {
      await consumer.stop();
      await reporting;
      await flow.close();
    },
  };
}

class SampleFlow {
  readonly #parts: RetrieverParts;
  readonly #writer: RecordWriter;
  readonly #scenarios: ReadonlySet<string>;
  readonly #reference: ReferencePolicy<LoadedPolicy>;
  readonly #rolloutBudget: RateBudget;
  readonly #hitRateBudget: RateBudget;
  readonly #decided = new RecentIds(REQUESTS_REMEMBERED);
  readonly #hits = new HitSums();
  readonly #dropped = new SlidingShare(DROPPED_WINDOW_MS);
  #newestRequestMs = 0;

  constructor(parts: RetrieverParts, writer: RecordWriter) {
    const { config, policies } = parts;
    this.#parts = parts;
    this.#writer = writer;
    this.#scenarios = new Set(Object.keys(config.scenarios));
    this.#reference = new ReferencePolicy({
      acquireNewest: () => policies.acquire(),
      syncSteps: config.referenceSyncSteps,
    });
    this.#rolloutBudget = new RateBudget(config.rolloutBudgetPerS);
    this.#hitRateBudget = new RateBudget(config.hitRateBudgetPerS);
  }

  async take(records: readonly TypedRecord<'training-samples'>[]): Promise<void> {
    this.#parts.meter.recordIn(records.length);
    for (const record of records) {
      const sample = record.value;
      if (sample === null || sample.kind !== 'FINAL') continue;
      try {
        checkSample(sample, {
          scenarios: this.#scenarios,
          nowMs: this.#parts.clock.nowMs(),
          allowedClockSkewMs: this.#parts.config.allowedClockSkewMs,
        });
      } catch (error) {
        if (!(error instanceof BadRecordError)) throw error;
        await this.#bury(record, error);
        continue;
      }
      await this.#takeFinal(sample, record.timestampMs);
    }
  }

  async #takeFinal(sample: TrainingSample, sampleMs: number): Promise<void> {
    const { config } = this.#parts;
    const { requestId, requestTimeMs } = sample.exposure;
    this.#newestRequestMs = Math.max(this.#newestRequestMs, requestTimeMs);
    const selection = selectRequest(config, requestId);
    if (selection === 'heldBack' && sample.clicked) await this.#measure(sample);
    if (selection === 'rollout' && this.#decided.add(requestId)) await this.#rollOut(sample, sampleMs);
  }

  /** n candidates of the reference policy for the request, with their log-probabilities (OneMall, section 3.3). */
  async #rollOut(sample: TrainingSample, sampleMs: number): Promise<void> {
    const { clock, config, gate, meter, retrieval } = this.#parts;
    const nowMs = clock.nowMs();
    if (nowMs - sampleMs > config.maxSampleAgeMs) return meter.add('rollouts_too_old');
    const lease = this.#reference.acquire();
    if (!lease) return meter.add('rollouts_without_policy');
    try {
      const shed = !this.#rolloutBudget.take(nowMs);
      this.#dropped.add(shed, nowMs);
      if (shed) return meter.add('shed_rollouts');
      const policy = lease.model;
      const { scenario, requestTimeMs, requestId } = sample.exposure;
      const request = { scenario, requestTimeMs, history: sample.history };
      const { found } = await gate.runInBackground(() =>
        retrieval.searchSids(policy, request, {
          beamWidth: config.rolloutCandidates,
          // the same request gives the same draw, so that a repeated sample gives the same rollout
          ...(config.rolloutSearch === 'sample' && { sample: { seed: drawSeed(requestId) } }),
        }),
      );
      const shelves = retrieval.shelves(policy, scenario);
      const rollout = buildRollout(
        sample,
        {
          policyVersion: policy.publication.policyVersion,
          codebookVersion: policy.publication.codebookVersions[scenario]!,
        },
        found,
        (packed) => firstItem(shelves, packed, config.itemOrder),
        clock.nowMs(),
      );
      await this.#writer.send([{ topic: 'rollouts', key: requestId, value: rollout }]);
      meter.recordOut();
      meter.recordLatency(Math.max(0, clock.nowMs() - sampleMs));
      meter.add('rollouts');
      meter.add('rollout_candidates', found.size);
      meter.set('reference_step', policy.publication.step);
      meter.add('rollout_candidates_without_item', rollout.candidates.filter((c) => !c.itemId).length);
    } catch (error) {
      if (!(error instanceof NothingToServeError)) throw error;
      meter.add('rollouts_without_sids');
    } finally {
      lease.release();
    }
  }

  /** Is the clicked item of a held-back request among the first items of the newest policy? */
  async #measure(sample: TrainingSample): Promise<void> {
    const { clock, config, gate, meter, policies, retrieval } = this.#parts;
    if (!this.#hitRateBudget.take(clock.nowMs())) return meter.add('shed_measurements');
    const lease = policies.acquire();
    if (!lease) return;
    try {
      const { policyVersion, step } = lease.model.publication;
      const { scenario, requestTimeMs, itemId } = sample.exposure;
      const request = { scenario, requestTimeMs, history: sample.history };
      const k = HIT_RATE_AT.at(-1)!;
      const beamWidth = Math.max(k, config.hitRateBeam);
      const { served, legal } = await gate.runInBackground(async () => ({
        served: await retrieval.retrieve(lease.model, request, { k, beamWidth }),
        legal: await retrieval.legality(lease.model, request, k),
      }));
      const place = served.findIndex((item) => item.itemId === itemId);
      this.#hits.add({ policyVersion, step, scenario, place, legal });
      meter.add('measured_requests');
      if (place >= 0) meter.add('measured_hits');
    } catch (error) {
      if (!(error instanceof NothingToServeError)) throw error;
      meter.add('measurements_without_sids');
    } finally {
      lease.release();
    }
  }

  /** Writes retrieval-metrics and gauges every now and then, and a last time when the service stops. */
  async reportUntilStopped(lag: () => Promise<number>): Promise<void> {
    const { clock, config, meter, stopping } = this.#parts;
    while (!stopping.aborted) {
      // stopping ends the sleep early: what was measured is still written
      await clock.sleep(Math.min(1000, config.retrievalMetricsMs), stopping).catch(() => {});
      if (!stopping.aborted) meter.setLag(await lag());
      this.#setSidGauges();
      this.#watchDropped();
      this.#forgetOldSids();
      await this.#reportHits(stopping.aborted);
    }
  }

  #warned = false;
  /** Says once when the budget cuts too much off, and once when it no longer does. */
  #watchDropped(): void {
    const { clock, config, log, meter } = this.#parts;
    const share = this.#dropped.share(clock.nowMs());
    meter.set('rollout_dropped_share', share, 'Share of selected requests that the budget shed, last minute');
    const tooMany = share > MOST_DROPPED;
    if (tooMany && !this.#warned)
      log.warn(
        { share, rolloutBudgetPerS: config.rolloutBudgetPerS, rolloutShare: config.rolloutShare },
        `more than ${MOST_DROPPED * 100} % of the rollouts are shed: raise rolloutBudgetPerS or lower rolloutShare`,
      );
    this.#warned = tooMany;
  }

  #reportedMs = Number.NEGATIVE_INFINITY;
  async #reportHits(last: boolean): Promise<void> {
    const { clock, config, meter } = this.#parts;
    if (!last && clock.nowMs() - this.#reportedMs < config.retrievalMetricsMs) return;
    this.#reportedMs = clock.nowMs();
    const records = this.#hits
      .take(this.#reportedMs)
      .map((value): OutRecord => ({ topic: 'retrieval-metrics', key: value.source, value }));
    if (records.length === 0) return;
    await this.#writer.send(records);
    meter.recordOut(records.length);
  }

  #forgotMs = 0;
  #forgetOldSids(): void {
    const { catalogue, clock, policies } = this.#parts;
    if (clock.nowMs() - this.#forgotMs < FORGET_EVERY_MS) return;
    this.#forgotMs = clock.nowMs();
    const served = new Set(Object.values(policies.current?.publication.codebookVersions ?? {}));
    catalogue.forgetBefore(this.#newestRequestMs - SID_HISTORY_MS, served);
  }

  #setSidGauges(): void {
    const { catalogue, meter, policies } = this.#parts;
    const versions = policies.current?.publication.codebookVersions ?? {};
    let total = 0;
    for (const [scenario, version] of Object.entries(versions)) {
      const numSids = catalogue.numSids(scenario, version);
      meter.set(`trie_sids_${scenario.replace(/[^a-zA-Z0-9_]/g, '_')}`, numSids);
      total += numSids;
    }
    meter.set('trie_sids', total);
    meter.set('catalogue_items', catalogue.numItems);
  }

  async #bury(record: TypedRecord<'training-samples'>, error: BadRecordError): Promise<void> {
    const { kafka, meter } = this.#parts;
    const value = await kafka.encode('training-samples', record.value!);
    const raw = { ...record, key: Buffer.from(record.key), value };
    await this.#writer.send([kafka.deadLetter(raw, error)]);
    meter.recordDeadLetter(error.reason);
  }

  async close(): Promise<void> {
    await this.#reference.close();
    await this.#reportHits(true);
    await this.#writer.close();
  }
}
