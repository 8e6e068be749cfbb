/**
 * Item2Item pairs for the encoder from the newest samples: Swing over the products that users clicked, neighbours among
 * the vectors of the item tower, and products with the videos watched before their click. Reads items, training-samples
 * and item-embeddings to their ends; writes one artifact. Requests that are held back have no part in it.
 */
import type { Item, TrainingSample } from '@onemall/contracts';
import {
  capPairs,
  clickBaskets,
  type FilterCount,
  Interactions,
  type ItemFacts,
  type ItemPair,
  nearestItems,
  neighbourPairs,
  PRODUCT_CARD,
  SHORT_VIDEO,
  stackVectors,
  swingPairs,
  uniquePairs,
  watchingPairs,
  writePairs,
} from '@onemall/quantization';
import { hashFraction, isHeldBack } from '@onemall/service-kit';
import { readTable } from '../adapters/read-table.ts';
import { scanNewest } from '../adapters/scan-newest.ts';
import { type JobContext, JobRefusedError } from './job.ts';

export async function collectPairs(context: JobContext): Promise<Record<string, unknown>> {
  const { config, kafka, artifacts, clock, log, progress } = context;
  const steps = ['reading items', 'reading samples', 'Swing', 'neighbours', 'watching'];
  const at = (step: number): Promise<void> =>
    progress({ step: steps[step]!, done: step, total: steps.length });
  await at(0);
  const facts = itemFacts((await readTable(kafka, 'items')).values());
  await at(1);
  let cutoffMs = 0;
  let interactions = newInteractions();
  await scanNewest(
    kafka,
    'training-samples',
    config.pairsMaxSamples,
    (sample) => {
      if (sample.kind !== 'FINAL' || isHeldBack(sample.exposure.requestId, config.heldBackFraction)) return;
      take(interactions, sample);
      cutoffMs = Math.max(cutoffMs, sample.exposure.eventTimeMs);
    },
    () => {
      interactions = newInteractions();
    },
  );
  await at(2);
  const products = (itemId: string): number | undefined => {
    const item = facts.get(itemId);
    return item?.kind === 'product' ? item.index : undefined;
  };
  const maxPerItem = config.pairsMaxPerItem;
  const baskets = clickBaskets(interactions.users(), products);
  const swing = swingPairs(baskets, facts.size, { maxPerItem });
  await at(3);
  const { pairs: neighbours, found } = await towerNeighbours(context, products);
  const commercial = [swing, neighbours].map((pairs) => capPairs(pairs, maxPerItem));
  const both = uniquePairs(commercial.flatMap(byRank));
  const kept = capPairs(both, maxPerItem);
  await at(4);
  const watching = watchingPairs(
    interactions.users(),
    (itemId) => facts.get(itemId) ?? null,
    (text) => hashFraction(`pairs:${config.seed}:${text}`),
    config.pairsExcludedCategories && { excludedCategories: config.pairsExcludedCategories },
  );
  const count = (filter: string, before: number, after: number): FilterCount => ({ filter, before, after });
  const filters = {
    swing: [
      count('users of at least two products', interactions.numUsers, baskets.length),
      count(`at most ${maxPerItem} per item`, swing.length, commercial[0]!.length),
    ],
    neighbours: [
      count(`similarity of at least ${config.pairsMinSimilarity}`, found, neighbours.length),
      count(`at most ${maxPerItem} per item`, neighbours.length, commercial[1]!.length),
    ],
    commercial: [
      count('equal pairs', commercial.flat().length, both.length),
      count(`at most ${maxPerItem} per item`, both.length, kept.length),
    ],
    watching: watching.filters,
  };
  const numPairs = { commercial: kept.length, watching: watching.pairs.length };
  const watchingSkipped =
    watching.filters[0]!.before === 0
      ? 'no sample of a short video says how long it was watched (watchMs): there are no watching pairs'
      : null;
  if (watchingSkipped) log.warn(watchingSkipped);
  const { coverage, numUsers } = interactions;
  log.info({ numPairs, filters, numUsers, coverage }, 'pairs collected');
  if (numPairs.commercial + numPairs.watching === 0)
    throw new JobRefusedError(
      `No pairs: ${numUsers} users with clicks or views are among the newest ${config.pairsMaxSamples} samples. Wait for users who click several products`,
    );
  const ref = await artifacts.put(
    `pairs/${clock.nowMs()}`,
    writePairs({
      itemIds: [...facts.keys()],
      commercial: indices(kept),
      watching: indices(watching.pairs),
      filters,
      cutoffMs,
    }),
  );
  return {
    ...ref,
    projectorPairs: `${ref.uri}@${ref.sha256}`,
    ...numPairs,
    ...(watchingSkipped !== null && { watchingSkipped }),
    filters,
    numUsers,
    ...coverage,
    cutoffMs,
  };

  function newInteractions(): Interactions {
    const limits = { maxUsers: config.pairsMaxUsers, maxPerUser: config.pairsMaxPerUser };
    return new Interactions(limits, (userId) => hashFraction(`pairs:${userId}`));
  }
}

/** Items by id, in order of their ids. */
function itemFacts(items: Iterable<Item>): Map<string, ItemFacts> {
  const kinds: Record<string, ItemFacts['kind']> = { [PRODUCT_CARD]: 'product', [SHORT_VIDEO]: 'video' };
  const sorted = [...items].sort((a, b) => (a.itemId < b.itemId ? -1 : 1));
  return new Map(
    sorted.map(({ itemId, scenario, category }, index) => [
      itemId,
      { index, kind: kinds[scenario] ?? 'other', category },
    ]),
  );
}

function take(interactions: Interactions, { exposure, clicked, clickDelayMs }: TrainingSample): void {
  const { userId, itemId, eventTimeMs, watchMs } = exposure;
  if (watchMs !== null && watchMs > 0)
    interactions.add(userId, { itemId, timeMs: eventTimeMs, kind: 'view', watchMs });
  if (clicked)
    interactions.add(userId, {
      itemId,
      timeMs: eventTimeMs + (clickDelayMs ?? 0),
      kind: 'click',
      watchMs: 0,
    });
}

/** Neighbours of product cards among the item tower's vectors, and how many there are of any similarity; none before a trainer publishes them. */
async function towerNeighbours(
  { config, kafka }: JobContext,
  indexOf: (itemId: string) => number | undefined,
): Promise<{ pairs: ItemPair[]; found: number }> {
  const vectors: { index: number; vector: readonly number[] }[] = [];
  for (const [itemId, { vector }] of await readTable(kafka, 'item-embeddings')) {
    const index = indexOf(itemId);
    if (index !== undefined && vectors.length < config.pairsMaxNeighbourItems)
      vectors.push({ index, vector });
  }
  if (vectors.length < 2) return { pairs: [], found: 0 };
  const nearest = await nearestItems(
    stackVectors(vectors.map(({ vector }) => vector)),
    config.pairsNeighbours,
    config.trainingThreads,
  );
  const pairs = neighbourPairs(nearest, config.pairsMinSimilarity).map(({ a, b, score }) => {
    const [x, y] = [vectors[a]!.index, vectors[b]!.index];
    return { a: Math.min(x, y), b: Math.max(x, y), score };
  });
  return { pairs, found: neighbourPairs(nearest, Number.NEGATIVE_INFINITY).length };
}

/** Scores of different kinds do not compare; ranks do. */
const byRank = (pairs: readonly ItemPair[]): ItemPair[] =>
  pairs.map((pair, rank) => ({ ...pair, score: 1 - rank / pairs.length }));

const indices = (pairs: readonly ItemPair[]): Int32Array =>
  Int32Array.from(pairs.flatMap(({ a, b }) => [a, b]));
