/**
 * The fixed policy that serves the logged traffic. Each place draws its source: taste (the user's intent or interests,
 * popular items first), popularity (Zipf over the whole kind) or random. It never looks at any trained model.
 */
import type { SeededRandom } from '@onemall/service-kit';
import type { Catalogue } from './catalogue.ts';
import { dotRow, zipfChance, zipfIndex } from './latent.ts';
import type { Rooms } from './rooms.ts';
import type { User } from './users.ts';

export type ScenarioName = 'product_card' | 'short_video' | 'live_stream';
/** Rooms that a taste draw compares. */
const ROOMS_COMPARED = 12;
/** Share of taste draws that follow the intent; the others follow a long-term interest. */
const FOLLOW_INTENT = 0.75;

/** Distinct item indices, or room rows for live_stream, in the order shown; fewer than `count` where the kind is small. */
export function choosePage(
  catalogue: Catalogue,
  rooms: Rooms,
  user: User,
  scenario: ScenarioName,
  count: number,
  random: SeededRandom,
): number[] {
  const page: number[] = [];
  for (let tries = 0; page.length < count && tries < 4 * count; tries++) {
    const choice =
      scenario === 'live_stream'
        ? chooseRoom(catalogue, rooms, user, random)
        : chooseItem(catalogue, user, scenario, random);
    if (choice >= 0 && !page.includes(choice)) page.push(choice);
  }
  return page;
}

/**
 * The chance that one draw of the policy shows each candidate to a user as she is now: what a perfect predictor of views
 * would know. Pages draw without repeats, which leaves the order of these chances as it is.
 * @returns float64 [candidates]: product cards by index, videos by index - numProducts, rooms by row
 */
export function viewChances(
  catalogue: Catalogue,
  rooms: Rooms,
  user: User,
  scenario: ScenarioName,
): Float64Array {
  const { policy } = catalogue.spec;
  const sum = policy.taste + policy.popularity + policy.random;
  if (scenario === 'live_stream') {
    const n = rooms.open.length;
    const chances = new Float64Array(n);
    for (let row = 0; row < n; row++)
      chances[row] = (policy.popularity * zipfChance(row, n) + policy.random / n) / sum;
    const matches = Float64Array.from({ length: n }, (_, row) => dotRow(user.want, rooms.latent, row));
    const byMatch = Int32Array.from({ length: n }, (_, row) => row).sort((a, b) => matches[b]! - matches[a]!);
    // the best of ROOMS_COMPARED draws is the room of rank r if none of them is better and not all are worse
    byMatch.forEach((row, r) => {
      const best = ((n - r) / n) ** ROOMS_COMPARED - ((n - r - 1) / n) ** ROOMS_COMPARED;
      chances[row]! += (policy.taste * best) / sum;
    });
    return chances;
  }
  const videos = scenario === 'short_video';
  const all = videos ? catalogue.videosByPopularity : catalogue.productsByPopularity;
  const first = videos ? catalogue.numProducts : 0;
  const n = all.length;
  const chances = new Float64Array(n);
  all.forEach((index, rank) => {
    chances[index - first] = (policy.popularity * zipfChance(rank, n) + policy.random / n) / sum;
  });
  const follow = (topic: number, weight: number): void => {
    const list = (videos ? catalogue.videosOfTopic : catalogue.productsOfTopic)[topic]!;
    list.forEach((index, rank) => {
      chances[index - first]! += (weight * policy.taste * zipfChance(rank, list.length)) / sum;
    });
  };
  follow(user.intent.topic, FOLLOW_INTENT);
  for (const topic of user.interests) follow(topic, (1 - FOLLOW_INTENT) / user.interests.length);
  return chances;
}

/** The chance that a taste draw of a room shows one of the `best` rooms by match, of n that are open. */
export const tasteDrawChance = (best: number, n: number): number =>
  1 - ((n - Math.min(best, n)) / n) ** ROOMS_COMPARED;

type Source = 'taste' | 'popularity' | 'random';
function drawSource(catalogue: Catalogue, random: SeededRandom): Source {
  const { taste, popularity, random: uniform } = catalogue.spec.policy;
  const draw = random.next() * (taste + popularity + uniform);
  return draw < taste ? 'taste' : draw < taste + popularity ? 'popularity' : 'random';
}

function chooseItem(
  catalogue: Catalogue,
  user: User,
  scenario: 'product_card' | 'short_video',
  random: SeededRandom,
): number {
  const videos = scenario === 'short_video';
  const all = videos ? catalogue.videosByPopularity : catalogue.productsByPopularity;
  if (all.length === 0) return -1;
  const source = drawSource(catalogue, random);
  if (source === 'random') return all[random.int(all.length)]!;
  if (source === 'popularity') return all[zipfIndex(all.length, random)]!;
  const topic = random.next() < FOLLOW_INTENT ? user.intent.topic : random.pick(user.interests);
  const list = (videos ? catalogue.videosOfTopic : catalogue.productsOfTopic)[topic]!;
  return list.length > 0 ? list[zipfIndex(list.length, random)]! : -1;
}

function chooseRoom(catalogue: Catalogue, rooms: Rooms, user: User, random: SeededRandom): number {
  const { open } = rooms;
  if (open.length === 0) return -1;
  const source = drawSource(catalogue, random);
  if (source === 'popularity') return zipfIndex(open.length, random);
  if (source === 'random') return random.int(open.length);
  let best = -1;
  let bestMatch = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < ROOMS_COMPARED; i++) {
    const row = random.int(open.length);
    const match = dotRow(user.want, rooms.latent, row);
    if (match > bestMatch) {
      best = row;
      bestMatch = match;
    }
  }
  return best;
}
