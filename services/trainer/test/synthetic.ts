/** A small world for tests: items whose SID follows from their number, users who keep to a few of them. Seeded. */
import type {
  Codebook,
  ItemSid,
  LiveSid,
  RewardBatch,
  Sid,
  TrainingSample,
  UserHistory,
} from '@onemall/contracts';
import { SeededRandom } from '@onemall/service-kit';

export const SCENARIOS = ['live_stream', 'product_card', 'short_video'] as const;
export const NUM_CODES: [number, number, number] = [16, 16, 16];
export const CODEBOOK_VERSION = 1;
/** Some moment; nothing depends on which. */
export const START_MS = 1_700_000_000_000;
const ITEMS_PER_SCENARIO = 60;
const NUM_USERS = 40;

export const itemName = (scenario: string, i: number): string => `${scenario}-${i}`;

export const sidOf = (scenario: string, i: number, codebookVersion = CODEBOOK_VERSION): Sid => ({
  scenario,
  codebookVersion,
  c1: i % NUM_CODES[0],
  c2: (i * 7) % NUM_CODES[1],
  c3: (i * 13) % NUM_CODES[2],
});

export const codebook = (scenario: string, codebookVersion = CODEBOOK_VERSION): Codebook => ({
  scenario,
  codebookVersion,
  uri: `codebooks/${scenario}/${codebookVersion}`,
  sha256: '0'.repeat(64),
  numCodes: [...NUM_CODES],
  dim: 8,
  metrics: {},
  towerVersion: null,
  towerUri: null,
  oldestVersion: 1,
  cutoffMs: 0,
  createdMs: START_MS,
});

export function itemSids(): ItemSid[] {
  return SCENARIOS.filter((s) => s !== 'live_stream').flatMap((scenario) =>
    Array.from({ length: ITEMS_PER_SCENARIO }, (_, i) => ({
      itemId: itemName(scenario, i),
      sid: sidOf(scenario, i),
      validFromMs: 0,
      reason: 'NEW_ITEM' as const,
      createdMs: START_MS,
    })),
  );
}

export function liveSids(): LiveSid[] {
  return Array.from({ length: ITEMS_PER_SCENARIO }, (_, i) => ({
    liveId: itemName('live_stream', i),
    sid: sidOf('live_stream', i),
    validFromMs: 0,
    reason: 'NEW_ITEM' as const,
    sellingItemIds: [itemName('product_card', i)],
    explainingItemId: null,
    sourcePartition: 0,
    sourceOffset: i,
    createdMs: START_MS,
  }));
}

/** @param over replaces fields of the sample that a test is about */
export function sample(n: number, over: Partial<TrainingSample> = {}, seed = 1): TrainingSample {
  const random = new SeededRandom(seed * 1_000_003 + n);
  const user = random.int(NUM_USERS);
  const scenario = random.pick(SCENARIOS);
  // A user keeps to items near a favourite, so that there is something to learn.
  const i = (user * 3 + random.int(4)) % ITEMS_PER_SCENARIO;
  const requestTimeMs = START_MS + n * 50;
  const clicked = random.next() < 0.5;
  const bought = clicked && random.next() < 0.3;
  return {
    exposure: {
      exposureId: `r${n}:0`,
      userId: `u${user}`,
      itemId: itemName(scenario, i),
      scenario,
      eventTimeMs: requestTimeMs + 10,
      requestId: `r${n}`,
      requestTimeMs,
      position: 0,
      watchMs: null,
      priceCents: 100 + i,
      requestFeatures: { ints: [], floats: [] },
    },
    kind: 'FINAL',
    firstPositive: clicked,
    clicked,
    clickDelayMs: clicked ? 20 : null,
    bought,
    buyDelayMs: bought ? 40 : null,
    buyValueCents: bought ? 100 + i : 0,
    buyQuantity: bought ? 1 : 0,
    sid: sidOf(scenario, i),
    item: {
      category: `cat${i % 5}`,
      tags: [`tag${i % 7}`],
      priceCents: 100 + i,
      sellerId: `s${i % 9}`,
      sellingItemIds: scenario === 'live_stream' ? [itemName('product_card', i)] : [],
      validFromMs: 0,
    },
    history: history(random, user, requestTimeMs),
    watermarkMs: requestTimeMs + 1_000,
    ...over,
  };
}

/** The history of sample n with so many events of each kind. */
export function historyOf(n: number, length: number): UserHistory {
  const random = new SeededRandom(2_000_003 + n);
  return history(random, random.int(NUM_USERS), START_MS + n * 50, [length, length, length]);
}

function history(
  random: SeededRandom,
  user: number,
  requestTimeMs: number,
  [exposures, clicks, buys] = [6, 3, 1],
): UserHistory {
  const events = (count: number) =>
    Array.from({ length: count }, (_, k) => {
      const i = (user * 3 + random.int(4)) % ITEMS_PER_SCENARIO;
      return {
        itemId: itemName(random.pick(SCENARIOS), i),
        eventTimeMs: requestTimeMs - (k + 1) * 1_000,
        category: `cat${i % 5}`,
      };
    });
  return { exposures: events(exposures!), clicks: events(clicks!), buys: events(buys!) };
}

/** @param over replaces fields of the group that a test is about */
export function rewardGroup(n: number, over: Partial<RewardBatch> = {}, numCandidates = 64): RewardBatch {
  const random = new SeededRandom(77_000 + n);
  const scenario = SCENARIOS[n % SCENARIOS.length]!;
  const rewards = Array.from({ length: numCandidates }, () => random.next());
  const mean = rewards.reduce((a, b) => a + b, 0) / numCandidates;
  const std = Math.sqrt(rewards.reduce((a, r) => a + (r - mean) ** 2, 0) / numCandidates);
  const requestTimeMs = START_MS + n * 50;
  return {
    requestId: `g${n}`,
    userId: `u${n % NUM_USERS}`,
    scenario,
    requestTimeMs,
    policyVersion: '0-000000000000',
    codebookVersion: CODEBOOK_VERSION,
    rankerVersion: '1-000000000000',
    history: history(random, n % NUM_USERS, requestTimeMs),
    candidates: rewards.map((reward, rank) => {
      const { c1, c2, c3 } = sidOf(scenario, rank);
      const logProb = -Math.log(NUM_CODES[0]);
      return {
        ...{ c1, c2, c3, rank, reward },
        tokenLogProbs: [logProb, logProb, logProb],
        itemId: itemName(scenario, rank),
        pCtr: reward,
        pCtcvr: reward / 10,
        pEgpm: reward,
        advantage: (reward - mean) / std,
      };
    }),
    rewardMean: mean,
    rewardStd: std,
    rolloutCreatedMs: START_MS + n,
    createdMs: START_MS + n,
    ...over,
  };
}
