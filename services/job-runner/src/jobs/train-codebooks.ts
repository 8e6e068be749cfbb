/**
 * Trains the next codebook version of each scenario from all items and publishes those that keep the limits.
 * Reads items and codebooks to their ends; writes an artifact and a codebooks record per scenario.
 */
import type { Codebook, Item } from '@onemall/contracts';
import { brokenLimits, Catalogue, codesForCatalogue, namedMetrics } from '@onemall/quantization';
import { trainInThread } from '@onemall/quantization/thread';
import { SeededRandom } from '@onemall/service-kit';
import { readTable } from '../adapters/read-table.ts';
import { type JobContext, JobRefusedError } from './job.ts';

const LEVELS = 3;

export async function trainCodebooks(context: JobContext): Promise<Record<string, unknown>> {
  const { config, kafka, log, progress } = context;
  await progress({ step: 'reading codebooks and items', done: 0, total: 1 });
  const newest = new Map<string, number>();
  for (const { scenario, codebookVersion } of (await readTable(kafka, 'codebooks')).values())
    newest.set(scenario, Math.max(newest.get(scenario) ?? 0, codebookVersion));
  const { catalogue, refused } = fillCatalogue(await readTable(kafka, 'items'), config.textEmbeddingDim);
  const scenarios = Object.keys(config.scenarios).filter(
    (scenario) => catalogue.count(scenario) >= config.minItemsForCodebook,
  );
  if (scenarios.length === 0)
    throw new JobRefusedError(
      `No configured scenario has ${config.minItemsForCodebook} items: ${Object.keys(config.scenarios)
        .map((s) => `${s} has ${catalogue.count(s)}`)
        .join(', ')}`,
    );
  const published: Record<string, unknown> = {};
  const broken: string[] = [];
  for (const [i, scenario] of scenarios.entries()) {
    const result = await trainOne(context, catalogue, scenario, (newest.get(scenario) ?? 0) + 1, (level) =>
      progress({
        step: `${scenario}, level ${level}`,
        done: i * LEVELS + level,
        total: scenarios.length * LEVELS,
      }),
    );
    if ('broken' in result) broken.push(`${scenario}: ${result.broken.join('; ')}`);
    else published[scenario] = result.published;
  }
  log.info({ published, broken, refusedItems: refused }, 'codebooks trained');
  if (broken.length > 0)
    throw new JobRefusedError(
      `Not published: ${broken.join(' | ')}. Published: ${Object.keys(published).join(', ') || 'none'}`,
    );
  return { published, refusedItems: refused };
}

async function trainOne(
  { config, kafka, artifacts, clock, stopping }: JobContext,
  catalogue: Catalogue,
  scenario: string,
  version: number,
  onLevel: (level: number) => Promise<void>,
): Promise<{ broken: string[] } | { published: Record<string, unknown> }> {
  const vectors = catalogue.trainingVectors(
    scenario,
    new SeededRandom(config.seed),
    config.maxTrainingVectors,
  )!;
  const { dim } = vectors;
  const numCodes = codesForCatalogue(catalogue.count(scenario), config.lastLevel);
  const cutoffMs = catalogue.newestMs(scenario);
  const { lastLevel, seed } = config;
  let told: Promise<void> = Promise.resolve();
  const { files, metrics } = await trainInThread(
    { vectors, scenario, version, numCodes, lastLevel, cutoffMs, seed },
    {
      signal: stopping,
      onLevel: (level) => {
        told = told.then(() => onLevel(level));
      },
    },
  );
  await told;
  const broken = brokenLimits(metrics, {
    maxExcessConflict: config.maxExcessConflict,
    minUsage: config.minCodeUsage,
    maxRelativeError: config.maxRelativeError,
  });
  if (broken.length > 0) return { broken };
  const uri = `codebooks/${scenario}/${version}`;
  // An attempt that crashed before its record was written may have left other bytes; nobody can have used them.
  await artifacts.remove(uri);
  const ref = await artifacts.put(uri, files);
  const value: Codebook = {
    scenario,
    codebookVersion: version,
    ...ref,
    numCodes: [...numCodes],
    dim,
    metrics: namedMetrics(metrics),
    towerVersion: null,
    towerUri: null,
    cutoffMs,
    createdMs: clock.nowMs(),
  };
  const writer = await kafka.openWriter();
  try {
    await writer.send([{ topic: 'codebooks', key: scenario, value }]);
  } finally {
    await writer.close();
  }
  return { published: { version, ...ref, metrics: value.metrics } };
}

/** Items whose embedding cannot be used are left out and counted; the live-sid-updater tells of each. */
function fillCatalogue(
  items: ReadonlyMap<string, Item>,
  textDim: number,
): { catalogue: Catalogue; refused: number } {
  const catalogue = new Catalogue(textDim);
  let refused = 0;
  for (const item of items.values()) {
    try {
      catalogue.put(item);
    } catch (error) {
      if ((error as Error).name !== 'ItemRefusedError') throw error;
      refused++;
    }
  }
  return { catalogue, refused };
}
