/**
 * HR@K of the policy that serves now, on the newest held-back requests with a click, beside popularity and random.
 * Reads the tail of training-samples and the items; asks the retriever; writes one point per scenario to
 * retrieval-metrics. With too few such requests its result says so, and nothing is written.
 */
import type { Metric } from '@onemall/contracts';
import { askRetriever } from '../adapters/ask-retriever.ts';
import { readTable } from '../adapters/read-table.ts';
import { readNewest } from '../adapters/scan-newest.ts';
import { groupRequests } from '../stages/group-requests.ts';
import { HitRates, KS } from '../stages/hit-rates.ts';
import type { JobContext } from './job.ts';

const PROGRESS_EVERY = 10;

export async function evaluateHitRate(context: JobContext): Promise<Record<string, unknown>> {
  const { config, kafka, clock, log, progress } = context;
  await progress({ step: 'reading samples', done: 0, total: 1 });
  const samples = await readNewest(kafka, 'training-samples', config.evaluateMaxSamples);
  const { requests, clicksByItem } = groupRequests(samples, config.heldBackFraction);
  const chosen = requests.slice(0, config.evaluateMaxRequests);
  // A pipeline that has just begun is in this state, so that it is a result and not a failure.
  if (chosen.length < config.evaluateMinRequests)
    return {
      nothingToMeasure: `${chosen.length} held-back requests with a click are among the newest ${samples.length} samples; at least ${config.evaluateMinRequests} are needed. Wait for more traffic or raise heldBackFraction (now ${config.heldBackFraction})`,
    };
  const items = await readTable(kafka, 'items');
  const rates = new HitRates(clicksByItem, [...items.values()]);
  const versions = new Set<string>();
  for (const [i, request] of chosen.entries()) {
    if (i % PROGRESS_EVERY === 0)
      await progress({ step: 'asking the retriever', done: i, total: chosen.length });
    const answer = await askRetriever(config, request, KS.at(-1)!, context.stopping);
    versions.add(answer.policyVersion);
    rates.add(
      request,
      answer.items.map((item) => item.itemId),
    );
  }
  const version = [...versions].at(-1)!;
  const byScenario = rates.summary();
  const points: Metric[] = Object.entries(byScenario).map(([scenario, values]) => ({
    source: 'job-runner',
    scenario,
    version,
    step: 0,
    values: { ...values, policyVersions: versions.size },
    createdMs: clock.nowMs(),
  }));
  const writer = await kafka.openWriter();
  try {
    await writer.send(points.map((value) => ({ topic: 'retrieval-metrics', key: value.source, value })));
  } finally {
    await writer.close();
  }
  await progress({ step: 'done', done: chosen.length, total: chosen.length });
  log.info({ policyVersions: [...versions], byScenario }, 'hit rates measured');
  return { policyVersions: [...versions], requests: chosen.length, hitRates: byScenario };
}
