/**
 * Retires codebook versions that nobody needs any more. It says so in the newest codebook record of the scenario; the
 * live-sid-updater, the only writer of SIDs, stops serving them and writes the tombstones, which the job waits for. Reads
 * policy-versions, codebooks, item-sids and live-sids; writes codebooks. With `dryRun` it only tells what it would do.
 */
import type { Codebook } from '@onemall/contracts';
import type { TableReader } from '@onemall/kafka-io';
import { LiveTower } from '@onemall/learning/live-tower';
import { LIVE_STREAM, PRODUCT_CARD } from '@onemall/quantization';
import { readTable } from '../adapters/read-table.ts';
import { planRetirement, type Retirement, type UsedSince } from '../stages/plan-retirement.ts';
import { type JobContext, JobRefusedError } from './job.ts';

const LOOK_EVERY_MS = 500;

export async function retireCodebooks(context: JobContext): Promise<Record<string, unknown>> {
  const { clock, config, kafka, kept, log, progress, stopping } = context;
  await progress({ step: 'reading policies, codebooks and SIDs', done: 0, total: 1 });
  const used = await usedVersions(context);
  if (used.size === 0)
    throw new JobRefusedError('No policy of the retriever is in use: every codebook version may be needed');
  const newest = await readTable(kafka, 'codebooks');
  const windowMs = Math.max(...Object.values(config.scenarios).map(({ buyWindowMs }) => buyWindowMs));
  const plan = planRetirement({
    newest: [...newest.values()].filter(({ scenario }) => config.scenarios[scenario] !== undefined),
    used,
    readByTower: await readByTowers(context, newest.get(LIVE_STREAM), used),
    waitMs: Math.max(config.retireAfterMs, windowMs + config.graceMs + config.longestOutageMs),
    nowMs: clock.nowMs(),
  });
  const sids = await RetiredSids.follow(context, plan);
  try {
    const told = plan.map((p) => ({ ...p, sids: sids.left(p.scenario) }));
    if (kept().dryRun === true) return { dryRun: true, plan: told };
    const due = plan.filter(({ retires, dueMs }) => retires.length > 0 && dueMs === null);
    await tellUpdater(
      context,
      due.map(({ scenario, oldestVersion }) => ({ ...newest.get(scenario)!, oldestVersion })),
    );
    log.info({ plan: told }, 'codebook versions are retired');
    const scenarios = due.map(({ scenario }) => scenario);
    const total = scenarios.reduce((sum, scenario) => sum + sids.left(scenario), 0);
    const giveUpMs = clock.nowMs() + config.retokenizeTimeoutMs;
    for (;;) {
      await sids.readToEnd();
      const left = scenarios.reduce((sum, scenario) => sum + sids.left(scenario), 0);
      await progress({ step: 'SIDs of retired versions ended', done: total - left, total });
      if (left === 0) return { plan: told };
      if (clock.nowMs() > giveUpMs)
        throw new Error(
          `${left} of ${total} SIDs in retired versions are still there after ${config.retokenizeTimeoutMs} ms: is the live-sid-updater at work?`,
        );
      await clock.sleep(LOOK_EVERY_MS, stopping);
    }
  } finally {
    await sids.close();
  }
}

/** By scenario the codebook version of the retriever's policy in use, and since when policies have had it. */
async function usedVersions({ kafka }: JobContext): Promise<Map<string, UsedSince>> {
  const used = new Map<string, UsedSince>();
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  // Records that compaction has taken away make a version look used for a shorter time, which only waits longer.
  const table = await kafka.openTable({
    topic: 'policy-versions',
    onRecord: ({ key, value }) => {
      if (key !== 'RETRIEVER' || !value) return;
      for (const [scenario, version] of Object.entries(value.codebookVersions))
        if (used.get(scenario)?.version !== version)
          used.set(scenario, { version, sinceMs: value.createdMs });
    },
    onError: failed.reject,
  });
  await Promise.race([table.readToEnd(), failed.promise]).finally(() => table.close());
  return used;
}

/** The lowest version of product cards whose SIDs the tower of a live codebook reads; null where none does. */
async function readByTowers(
  { artifacts, kafka }: JobContext,
  newest: Codebook | undefined,
  used: ReadonlyMap<string, UsedSince>,
): Promise<number | null> {
  const records = new Map<number, Codebook>();
  const table = await kafka.openTable({
    topic: 'codebooks',
    onRecord: ({ value }) => {
      if (value?.scenario === LIVE_STREAM) records.set(value.codebookVersion, value);
    },
    onError: () => {},
  });
  await table.readToEnd().finally(() => table.close());
  if (newest) records.set(newest.codebookVersion, newest);
  let lowest: number | null = null;
  for (const record of records.values()) {
    if (record.towerVersion === null || record.codebookVersion < (used.get(LIVE_STREAM)?.version ?? 1))
      continue;
    const tower = await LiveTower.open(await artifacts.get(record));
    const version = tower.codebookVersions[PRODUCT_CARD];
    await tower.close();
    if (version !== undefined) lowest = Math.min(lowest ?? version, version);
  }
  return lowest;
}

async function tellUpdater({ kafka }: JobContext, records: readonly Codebook[]): Promise<void> {
  const writer = await kafka.openWriter();
  try {
    await writer.send(records.map((value) => ({ topic: 'codebooks', key: value.scenario, value })));
  } finally {
    await writer.close();
  }
}

/** Follows item-sids and live-sids, and counts what is left in versions that a plan retires. */
class RetiredSids {
  readonly #tables: TableReader[] = [];
  /** Scenario by key. */
  readonly #left = new Map<string, string>();

  static async follow({ kafka }: JobContext, plan: readonly Retirement[]): Promise<RetiredSids> {
    const sids = new RetiredSids();
    const retired = (scenario: string, version: number): boolean =>
      plan.some((p) => p.scenario === scenario && p.retires.includes(version));
    const take = (key: string, scenario: string | undefined): void => {
      const version = Number(key.slice(key.lastIndexOf(':') + 1));
      if (scenario !== undefined && retired(scenario, version)) sids.#left.set(key, scenario);
      else sids.#left.delete(key);
    };
    // An error ends the following, and with it the next readToEnd.
    const onError = (): void => {};
    for (const table of [
      await kafka.openTable({
        topic: 'item-sids',
        onRecord: ({ key, value }) => take(key, value?.sid.scenario),
        onError,
      }),
      await kafka.openTable({
        topic: 'live-sids',
        onRecord: ({ key, value }) => take(key, value ? LIVE_STREAM : undefined),
        onError,
      }),
    ])
      sids.#tables.push(table);
    await sids.readToEnd();
    return sids;
  }

  async readToEnd(): Promise<void> {
    for (const table of this.#tables) await table.readToEnd();
  }
  left(scenario: string): number {
    let left = 0;
    for (const of of this.#left.values()) if (of === scenario) left++;
    return left;
  }
  async close(): Promise<void> {
    for (const table of this.#tables) await table.close();
  }
}
