/**
 * Trains the next codebook version of each scenario from all items and publishes those that keep the limits. It begins
 * from the version before and keeps its code indices; an attempt that follows a crash goes on where that one was.
 * Reads items and codebooks to their ends; writes an artifact and a codebooks record per scenario.
 */
import type { Codebook, Item } from '@onemall/contracts';
import {
  brokenLimits,
  type Catalogue,
  codesForCatalogue,
  LIVE_STREAM,
  type MovedShares,
  namedMetrics,
  readCodebook,
} from '@onemall/quantization';
import { trainInThread } from '@onemall/quantization/thread';
import { SeededRandom } from '@onemall/service-kit';
import { fillCatalogue } from '../adapters/fill-catalogue.ts';
import { readTable } from '../adapters/read-table.ts';
import { TrainingStates, trainingFingerprint } from '../adapters/training-states.ts';
import { chooseProjector } from './choose-projector.ts';
import { type JobContext, JobRefusedError } from './job.ts';
import { liveTowerVectors } from './live-tower-vectors.ts';

const LEVELS = 3;

export async function trainCodebooks(context: JobContext): Promise<Record<string, unknown>> {
  const { config, kafka, log, progress, kept, keep } = context;
  await progress({ step: 'reading codebooks and items', done: 0, total: 1 });
  const newest = await readTable(kafka, 'codebooks');
  const items = await readTable(kafka, 'items');
  const { catalogue, refused } = await fillCatalogue(items, config);
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
    const total = scenarios.length * LEVELS;
    const onLevel = (level: number): Promise<void> =>
      progress({ step: `${scenario}, level ${level}`, done: i * LEVELS + level, total });
    // An attempt before that was stopped later has published it: a second version would say the same.
    const done = kept()[`published:${scenario}`];
    const result = done
      ? { published: done }
      : await trainOne(context, { catalogue, items }, scenario, newest.get(scenario) ?? null, onLevel);
    if ('broken' in result) broken.push(`${scenario}: ${result.broken.join('; ')}`);
    else {
      published[scenario] = result.published;
      await keep({ [`published:${scenario}`]: result.published });
    }
  }
  log.info({ published, broken, refusedItems: refused }, 'codebooks trained');
  if (broken.length > 0)
    throw new JobRefusedError(
      `Not published: ${broken.join(' | ')}. Published: ${Object.keys(published).join(', ') || 'none'}`,
    );
  return { published, refusedItems: refused };
}

async function trainOne(
  context: JobContext,
  { catalogue, items }: { catalogue: Catalogue; items: ReadonlyMap<string, Item> },
  scenario: string,
  newest: Codebook | null,
  onLevel: (level: number) => Promise<void>,
): Promise<{ broken: string[] } | { published: Record<string, unknown> }> {
  const { config, artifacts, clock, log, stopping } = context;
  const tower = scenario === LIVE_STREAM ? await liveTowerVectors(context, catalogue, items) : null;
  const random = new SeededRandom(config.seed);
  const vectors = tower?.vectors ?? catalogue.trainingVectors(scenario, random, config.maxTrainingVectors)!;
  const { dim } = vectors;
  const numCodes = codesForCatalogue(catalogue.count(scenario), config.lastLevel);
  const cutoffMs = catalogue.newestMs(scenario);
  const { lastLevel, seed } = config;
  const version = (newest?.codebookVersion ?? 0) + 1;
  const textEncoder = tower ? null : catalogue.textEncoderName;
  const previous = newest ? await artifacts.get(newest) : null;
  const { projector, metrics: ofProjector } = await chooseProjector(
    context,
    scenario,
    vectors,
    catalogue,
    previous ? readCodebook(previous).projector : undefined,
  );
  const options = {
    ...{ scenario, version, numCodes, lastLevel, cutoffMs, seed },
    ...(projector && { projector }),
    ...(textEncoder !== null && { textEncoder }),
  };
  const states = new TrainingStates(context, scenario, trainingFingerprint(vectors, options));
  const resume = await states.load();
  if (resume)
    log.info({ scenario, levels: resume.levels.length }, 'going on where the attempt before was stopped');
  let told: Promise<void> = Promise.resolve();
  const { files, metrics, moved } = await trainInThread(
    {
      vectors,
      ...options,
      numThreads: config.trainingThreads,
      ...(previous && { previous }),
      ...(resume && { resume }),
    },
    {
      signal: stopping,
      onState: (state) => {
        told = told.then(async () => {
          if (stopping.aborted) return;
          await states.offer(state);
          if (!state.kmeans) await onLevel(state.levels.length);
        });
        told.catch(() => {});
      },
    },
  ).catch(async (error: unknown) => {
    // What is being kept is whole before the attempt ends.
    await told.catch(() => {});
    throw error;
  });
  await told;
  stopping.throwIfAborted();
  const broken = brokenLimits(metrics, {
    maxExcessConflict: config.maxExcessConflict,
    minUsage: config.minCodeUsage,
    maxRelativeError: config.maxRelativeError,
  });
  if (moved && moved.byLevel[0]! > config.maxMovedShare)
    broken.push(
      `${moved.byLevel[0]!.toFixed(3)} of the items get another first-level code than in version ${newest!.codebookVersion}; at most ${config.maxMovedShare} may`,
    );
  if (broken.length > 0) {
    await states.clear();
    return { broken };
  }
  const uri = `codebooks/${scenario}/${version}`;
  // An attempt that crashed before its record was written may have left other bytes; nobody can have used them.
  await artifacts.remove(uri);
  const ref = await artifacts.put(uri, new Map([...files, ...(tower?.files ?? [])]));
  const value: Codebook = {
    scenario,
    codebookVersion: version,
    ...ref,
    numCodes: [...numCodes],
    dim,
    metrics: { ...namedMetrics(metrics), ...(moved && namedMoves(moved)), ...ofProjector },
    towerVersion: tower?.version ?? null,
    // Beside the codebook itself: policies are removed after a while, a frozen tower is not.
    towerUri: tower ? uri : null,
    oldestVersion: newest?.oldestVersion ?? 1,
    cutoffMs,
    createdMs: clock.nowMs(),
  };
  await publish(context, value);
  await states.clear();
  return { published: { version, ...ref, metrics: value.metrics } };
}

async function publish({ kafka }: JobContext, value: Codebook): Promise<void> {
  const writer = await kafka.openWriter();
  try {
    await writer.send([{ topic: 'codebooks', key: value.scenario, value }]);
  } finally {
    await writer.close();
  }
}

/** moved: share of the items of which any code is another than in the version before; moved1 to moved3 by level. */
const namedMoves = ({ any, byLevel }: MovedShares): Record<string, number> => ({
  moved: any,
  ...Object.fromEntries(byLevel.map((share, l) => [`moved${l + 1}`, share])),
});
