/** Rankers on a log: one rewards the policies, another, of other users and another seed, only judges them. */
import { rankerFeatures } from '@onemall/features';
import {
  createRankerTrainer,
  type EngineOptions,
  loadRanker,
  type RankerPresetName,
  type RankerRuntime,
  type RankerSample,
  rankerPresets,
} from '@onemall/learning';
import { type EgpmState, observeEgpm, winsorize } from '@onemall/trainer/src/stages/scale-egpm.ts';
import type { RunStore } from '../adapters/run-store.ts';
import { SCENARIOS, type WorldLog } from '../log/world-log.ts';
import { featuresAsOf } from '../samples/training-samples.ts';

export interface RankerRun {
  name: string;
  preset: RankerPresetName;
  seed: number;
  /** Users are split by the remainder of their number by 2; each ranker sees one half. */
  userHalf: 0 | 1;
  historyLength: number;
  /** Newest FINAL samples of its users, at most. */
  maxSamples: number;
  engine?: EngineOptions;
}

const REPORT_EVERY = 100;
/** S is set elsewhere: only the values of buys are remembered. */
const NO_SCALE = { minExposures: Number.POSITIVE_INFINITY, minBuys: Number.POSITIVE_INFINITY };
/** Few samples come in smaller batches: a ranker of fewer steps has learnt little more than the mean. */
const LEAST_STEPS = 600;

/** @param rows of the finals, see `finalsBefore` */
export async function trainRanker(
  log: WorldLog,
  rows: Int32Array,
  run: RankerRun,
  store: RunStore,
  print: (line: string) => void,
): Promise<RankerRuntime> {
  const done = await store.files(run.name);
  if (done) return loadRanker(done);
  const userOf = (row: number): number => log.requests.user.at(log.exposures.request.at(row));
  const own = rows.filter((row) => userOf(row) % 2 === run.userHalf);
  const trained = own.subarray(Math.max(0, own.length - run.maxSamples));
  const preset = rankerPresets[run.preset];
  const batchSize = Math.max(1, Math.min(preset.batchSize, Math.floor(trained.length / LEAST_STEPS)));
  const trainer = await createRankerTrainer({
    preset,
    batchSize,
    scenarios: SCENARIOS,
    seed: run.seed,
    ...(run.engine && { engine: run.engine }),
  });
  let paid: EgpmState = {};
  try {
    for (let at = 0; at + batchSize <= trained.length; at += batchSize) {
      const batch = Array.from(trained.subarray(at, at + batchSize), (row) =>
        rankerSample(log, row, run.historyLength),
      );
      // as the streaming trainer: values are cut by what earlier steps saw
      const { loss, step, ...predicted } = await trainer.step(
        batch.map((s) => ({ ...s, buyValueCents: winsorize(s.buyValueCents, paid[s.scenario]) })),
      );
      paid = observeEgpm(
        paid,
        batch.map(({ scenario, bought, buyValueCents }, i) => ({
          ...{ scenario, bought, buyValueCents },
          pCtr: predicted.pCtr[i]!,
          pCtcvr: predicted.pCtcvr[i]!,
          buyValueGivenBuyCents: predicted.buyValueCents[i]!,
        })),
        NO_SCALE,
      );
      if (step % REPORT_EVERY === 0) print(`${run.name} step ${step}: loss ${loss.total.toFixed(4)}`);
    }
    const figures = trainer.metrics();
    print(`${run.name}: ${JSON.stringify(figures)}`);
    // no scale of its own: whoever compares sets one from the base policy's lists
    const scales = Object.fromEntries(SCENARIOS.map((s) => [s, 1]));
    const files = await trainer.exportRanker({ rankerVersion: run.name, egpmScale: scales });
    await store.setFiles(run.name, files, figures);
    return await loadRanker(files);
  } finally {
    await trainer.close();
  }
}

function rankerSample(log: WorldLog, row: number, historyLength: number): RankerSample {
  const request = log.exposures.request.at(row);
  const item = log.exposures.item.at(row);
  const requestTimeMs = log.requests.timeMs.at(request);
  const scenario = log.scenario(request);
  const history = log.historyBefore(request, historyLength);
  const features = featuresAsOf(log, item, requestTimeMs);
  const bought = log.exposures.buyMs.at(row) > 0;
  return {
    scenario,
    ...rankerFeatures({ scenario, requestTimeMs, history }, log.itemId(item), features),
    clicked: log.exposures.clickMs.at(row) > 0,
    bought,
    buyValueCents: bought ? log.exposures.buyPriceCents.at(row) * log.exposures.buyQuantity.at(row) : 0,
  };
}
