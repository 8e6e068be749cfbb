/** Lays a batch of samples and reward groups out as the arrays that the retrieval graphs take. */
import {
  BEHAVIOURS,
  hashFeature,
  type ItemTensors,
  NUM_ITEM_HASHES,
  NUM_ITEM_SIDS,
  type RequestTensors,
  type SidLayout,
  writeSidRows,
} from '@onemall/features';
import type { Arrays } from '../engine/ort-sessions.ts';
import { BatchError, type RetrievalSample, type RewardGroup, type SidChildren } from '../trainer-ports.ts';
import { childRows, childrenFeeds } from './masked-accuracy.ts';
import type { RetrievalSizes, RlSizes } from './onemall.ts';

/** Added to the score of a code that no SID goes on with; float32 holds it exactly. */
const NO_CHILD = -1_000_000_000;

/** Inputs of `evaluationPass`. @throws BatchError */
export function evaluationFeeds(samples: readonly RetrievalSample[], sizes: RetrievalSizes): Arrays {
  const { batchSize, historyLength } = sizes;
  const requests = samples.map((s) => s.request);
  return {
    ...historyFeeds(requests, batchSize, historyLength),
    ...rowFeeds(samples, [], sizes, batchSize),
  };
}

const scenarioIndex = (layout: SidLayout, scenario: string): number => {
  const index = layout.scenarios.indexOf(scenario);
  if (index < 0)
    throw new BatchError(`Unknown scenario ${scenario}; this model knows ${layout.scenarios.join(', ')}`);
  return index;
};

/** Lengths below this are not worth a graph of their own. */
const LEAST_READ_LENGTH = 8;

/** Lengths that graphs may have: a quarter of H, half of it, all of it. */
export const readLengths = (historyLength: number): readonly number[] =>
  [4, 2, 1]
    .map((part) => Math.ceil(historyLength / part))
    .filter((length) => length === historyLength || length >= LEAST_READ_LENGTH);

/** The shortest graph that reads every event of the requests. @returns one of `readLengths` */
export function readLengthOf(requests: readonly RequestTensors[], historyLength: number): number {
  let longest = 0;
  for (const { behaviours } of requests)
    for (const behaviour of BEHAVIOURS) {
      const { codes } = behaviours[behaviour];
      let length = codes.length / 3;
      while (length > longest && codes[length * 3 - 3]! < 0) length--;
      longest = Math.max(longest, length);
    }
  return readLengths(historyLength).find((length) => length >= longest) ?? historyLength;
}

/** history.* of requests; rows beyond them stay empty. @param rows at least requests.length @param readLength events that are taken */
export function historyFeeds(
  requests: readonly RequestTensors[],
  rows: number,
  historyLength: number,
  readLength = historyLength,
): Arrays {
  const size = BEHAVIOURS.length * rows * readLength;
  const codes = [0, 1, 2].map(() => new Int32Array(size).fill(-1));
  const ages = new Int32Array(size);
  const scenarios = new Int32Array(size);
  requests.forEach(({ behaviours }, row) => {
    BEHAVIOURS.forEach((behaviour, b) => {
      const tensors = behaviours[behaviour];
      if (tensors.ages.length !== historyLength)
        throw new BatchError(
          `This model reads ${historyLength} events per behaviour, a request has ${tensors.ages.length} (${behaviour})`,
        );
      const at = (b * rows + row) * readLength;
      ages.set(tensors.ages.subarray(0, readLength), at);
      scenarios.set(tensors.scenarios.subarray(0, readLength), at);
      for (let i = 0; i < readLength; i++)
        for (let level = 0; level < 3; level++) codes[level]![at + i] = tensors.codes[i * 3 + level]!;
    });
  });
  return {
    'history.codes1': codes[0]!,
    'history.codes2': codes[1]!,
    'history.codes3': codes[2]!,
    'history.ages': ages,
    'history.scenarios': scenarios,
  };
}

/** item.* of items; rows beyond them stay empty. */
export function itemFeeds(items: readonly ItemTensors[], rows: number, layout: SidLayout): Arrays {
  const hashes = new Int32Array(rows * NUM_ITEM_HASHES).fill(-1);
  const codes = [0, 1, 2].map(() => new Int32Array(rows * NUM_ITEM_SIDS).fill(-1));
  const scenario = new Int32Array(rows);
  items.forEach((item, row) => {
    hashes.set(item.hashes, row * NUM_ITEM_HASHES);
    for (let i = 0; i < NUM_ITEM_SIDS; i++)
      for (let level = 0; level < 3; level++)
        codes[level]![row * NUM_ITEM_SIDS + i] = item.codes[i * 3 + level]!;
    scenario[row] = scenarioIndex(layout, item.scenario);
  });
  return {
    'item.hashes': hashes,
    'item.codes1': codes[0]!,
    'item.codes2': codes[1]!,
    'item.codes3': codes[2]!,
    'item.scenario': scenario,
  };
}

/**
 * All inputs of `retrievalPass`.
 * @param logQ [samples] of each target
 * @param rlNormalizer L_RL = sum over groups of the mean over their candidates, divided by this
 * @throws BatchError
 */
export function retrievalFeeds(
  samples: readonly RetrievalSample[],
  groups: readonly RewardGroup[],
  sizes: RetrievalSizes,
  { logQ, rlScale, rlNormalizer }: { logQ: Float32Array; rlScale: number; rlNormalizer: number },
): Arrays {
  const { batchSize, historyLength, readLength, layout, rl } = sizes;
  if (samples.length > batchSize)
    throw new BatchError(`A step takes at most ${batchSize} samples, got ${samples.length}`);
  if (samples.length === 0) throw new BatchError('A step needs at least one sample, got none');
  if (groups.length > (rl?.groups ?? 0))
    throw new BatchError(`A step takes at most ${rl?.groups ?? 0} reward groups, got ${groups.length}`);
  const maxGroups = rl?.groups ?? 0;
  const candidates = maxGroups * (rl?.perGroup ?? 0);
  const requests = [
    ...groups.map((g) => g.request),
    ...Array.from({ length: maxGroups - groups.length }, () => emptyRequest(historyLength)),
    ...samples.map((s) => s.request),
  ];
  const itemKey = new Int32Array(batchSize);
  samples.forEach((sample, i) => {
    itemKey[i] = hashFeature('itemKey', `${sample.target.scenario}\0${sample.itemId}`);
  });
  const paddedLogQ = new Float32Array(batchSize);
  paddedLogQ.set(logQ);
  return {
    ...historyFeeds(requests, maxGroups + batchSize, historyLength, readLength),
    ...itemFeeds(
      samples.map((s) => s.item),
      batchSize,
      layout,
    ),
    ...rowFeeds(samples, groups, sizes, candidates + batchSize),
    'sample.weight': normalizedWeights(samples, batchSize),
    'sample.itemKey': itemKey,
    'sample.logQ': paddedLogQ,
    ...(sizes.maskedAccuracy && sizes.normalizer !== 'trie' && childrenFeeds(samples, layout, batchSize)),
    ...(rl ? rewardFeeds(groups, rl, rlScale, rlNormalizer) : {}),
  };
}

function rowFeeds(
  samples: readonly RetrievalSample[],
  groups: readonly RewardGroup[],
  { layout, rl, batchSize, normalizer }: RetrievalSizes,
  rows: number,
): Arrays {
  const scenario = new Int32Array(rows);
  const codes = [0, 1, 2].map(() => new Int32Array(rows));
  const present = new Float32Array(rows);
  const sid = new Int32Array(3);
  const priors =
    normalizer === 'trie' ? layout.rows.map((count) => new Float32Array(rows * count).fill(NO_CHILD)) : [];
  const put = (
    row: number,
    name: string,
    [c1, c2, c3]: readonly [number, number, number],
    children: SidChildren | undefined,
  ): void => {
    scenario[row] = scenarioIndex(layout, name);
    try {
      writeSidRows(layout, { scenario: name, c1, c2, c3 }, sid, 0);
    } catch (error) {
      throw new BatchError((error as Error).message, { cause: error });
    }
    for (let level = 0; level < 3; level++) codes[level]![row] = sid[level]!;
    present[row] = 1;
    if (priors.length === 0) return;
    if (!children)
      throw new BatchError(
        'With normalizer trie every sample and candidate needs `children`, one that has none came',
      );
    for (const level of [0, 1, 2] as const) {
      const prior = priors[level]!;
      const siblings = childRows(children, name, layout, level);
      const { logWeights } = children[level];
      if (logWeights && logWeights.length !== siblings.length)
        throw new BatchError(
          `Level ${level + 1} has ${siblings.length} children and ${logWeights.length} weights`,
        );
      const first = row * layout.rows[level];
      for (let i = 0; i < siblings.length; i++) prior[first + siblings[i]!] = logWeights?.[i] ?? 0;
      const own = first + sid[level]!;
      if (prior[own] === NO_CHILD) prior[own] = 0;
    }
  };
  groups.forEach((group, g) => {
    const perGroup = rl!.perGroup;
    if (group.candidates.length > perGroup || group.candidates.length < (rl!.form === 'dpo' ? 2 : 1))
      throw new BatchError(
        `A ${rl!.form} group takes up to ${perGroup} candidates, got ${group.candidates.length}`,
      );
    group.candidates.forEach((candidate, i) => {
      put(g * perGroup + i, group.request.scenario, candidate.codes, candidate.children);
    });
  });
  const first = rows - batchSize;
  samples.forEach(({ request, target, children }, i) => {
    if (request.scenario !== target.scenario)
      throw new BatchError(
        `A sample of ${request.scenario} has a target of ${target.scenario}; one request is one scenario`,
      );
    put(first + i, target.scenario, [target.c1, target.c2, target.c3], children);
  });
  return {
    'row.scenario': scenario,
    'row.codes1': codes[0]!,
    'row.codes2': codes[1]!,
    'row.codes3': codes[2]!,
    'row.present': present,
    ...Object.fromEntries(priors.map((prior, level) => [`row.prior${level + 1}`, prior])),
  };
}

function normalizedWeights(samples: readonly RetrievalSample[], batchSize: number): Float32Array {
  const weights = new Float32Array(batchSize);
  let sum = 0;
  for (const { weight = 1 } of samples) {
    if (!(weight >= 0 && Number.isFinite(weight)))
      throw new BatchError(`A sample weight must be a finite number of at least 0, got ${weight}`);
    sum += weight;
  }
  if (sum === 0) throw new BatchError('All samples of the batch have weight 0');
  samples.forEach(({ weight = 1 }, i) => {
    weights[i] = weight / sum;
  });
  return weights;
}

function rewardFeeds(groups: readonly RewardGroup[], rl: RlSizes, scale: number, normalizer: number): Arrays {
  const size = rl.groups * rl.perGroup;
  const refLogProb = new Float32Array(size);
  const advantage = new Float32Array(size);
  const weight = new Float32Array(size);
  groups.forEach(({ candidates }, g) => {
    const counted = rl.form === 'dpo' ? candidates.length - 1 : candidates.length;
    candidates.forEach((candidate, i) => {
      const at = g * rl.perGroup + i;
      if (!(Number.isFinite(candidate.refLogProb) && Number.isFinite(candidate.advantage)))
        throw new BatchError(
          `A candidate has refLogProb ${candidate.refLogProb} and advantage ${candidate.advantage}; both must be finite`,
        );
      refLogProb[at] = candidate.refLogProb;
      advantage[at] = candidate.advantage;
      weight[at] = 1 / (counted * normalizer);
    });
  });
  return {
    'rl.refLogProb': refLogProb,
    ...(rl.form === 'grpo' ? { 'rl.advantage': advantage } : {}),
    'rl.weight': weight,
    'rl.scale': Float32Array.of(scale),
  };
}

function emptyRequest(historyLength: number): RequestTensors {
  const none = {
    codes: new Int32Array(historyLength * 3).fill(-1),
    ages: new Int32Array(historyLength),
    scenarios: new Int32Array(historyLength),
  };
  return { scenario: '', behaviours: { exposure: none, click: none, buy: none } };
}
