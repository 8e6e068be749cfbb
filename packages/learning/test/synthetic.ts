/** A small learnable world: the next SID is that of the newest click; histories and items are random but seeded. */
import {
  type BehaviourTensors,
  hashFeature,
  type ItemTensors,
  NUM_ITEM_HASHES,
  NUM_ITEM_SIDS,
  type NumCodes,
  type RequestTensors,
  type SidLayout,
  sidLayout,
} from '@onemall/features';
import type { RetrievalSample, RewardGroup } from '../src/index.ts';

export const SCENARIOS = ['product_card', 'short_video', 'live_stream'] as const;
export const NUM_CODES: NumCodes = {
  product_card: [24, 24, 32],
  short_video: [30, 24, 32],
  live_stream: [16, 24, 8],
};
export const LAYOUT: SidLayout = sidLayout(SCENARIOS, NUM_CODES);

/** Whole numbers in [0, n) and floats in [0, 1), seeded (mulberry32). */
export function randomSource(seed: number): { int(n: number): number; next(): number } {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
  return { next, int: (n) => Math.floor(next() * n) };
}
export type Random = ReturnType<typeof randomSource>;

export function randomRequest(random: Random, historyLength: number, layout = LAYOUT): RequestTensors {
  const scenario = layout.scenarios[random.int(layout.scenarios.length)]!;
  const behaviour = (count: number): BehaviourTensors => {
    const codes = new Int32Array(historyLength * 3).fill(-1);
    const ages = new Int32Array(historyLength);
    const scenarios = new Int32Array(historyLength);
    for (let i = 0; i < count; i++) {
      for (const level of [0, 1, 2] as const)
        codes[i * 3 + level] =
          layout.offsets.get(scenario)![level] + random.int(layout.numCodes[scenario]![level]);
      ages[i] = random.int(20);
      scenarios[i] = layout.scenarios.indexOf(scenario);
    }
    return { codes, ages, scenarios };
  };
  return {
    scenario,
    behaviours: {
      exposure: behaviour(random.int(historyLength + 1)),
      click: behaviour(1),
      buy: behaviour(random.int(2)),
    },
  };
}

export function sampleFor(random: Random, request: RequestTensors, layout = LAYOUT): RetrievalSample {
  const { scenario } = request;
  const rows = request.behaviours.click.codes.subarray(0, 3);
  const [c1, c2, c3] = [0, 1, 2].map((l) => rows[l]! - layout.offsets.get(scenario)![l as 0 | 1 | 2]) as [
    number,
    number,
    number,
  ];
  const itemId = `${scenario}-${c1}-${c2}-${c3}`;
  const hashes = new Int32Array(NUM_ITEM_HASHES).fill(-1);
  hashes[0] = hashFeature('category', String(c1));
  hashes[1] = hashFeature('seller', String(random.int(5)));
  hashes[2] = hashFeature('price', String(c2));
  const codes = new Int32Array(NUM_ITEM_SIDS * 3).fill(-1);
  codes.set(rows);
  const item: ItemTensors = { scenario, hashes, codes };
  return { request, target: { scenario, c1, c2, c3 }, item, itemId };
}

export function randomSamples(
  random: Random,
  count: number,
  historyLength: number,
  layout = LAYOUT,
): RetrievalSample[] {
  return Array.from({ length: count }, () =>
    sampleFor(random, randomRequest(random, historyLength, layout), layout),
  );
}

export function randomGroup(
  random: Random,
  historyLength: number,
  candidates: number,
  layout = LAYOUT,
): RewardGroup {
  const request = randomRequest(random, historyLength, layout);
  const counts = layout.numCodes[request.scenario]!;
  return {
    request,
    candidates: Array.from({ length: candidates }, () => ({
      codes: [random.int(counts[0]), random.int(counts[1]), random.int(counts[2])] as const,
      refLogProb: -9 - 2 * random.next(),
      advantage: 2 * random.next() - 1,
    })),
  };
}
