/** Users: long-term taste, the intent of the moment, memories of old intents, and their ways with clicks and money. */
import { SeededRandom } from '@onemall/service-kit';
import type { Topics } from './catalogue.ts';
import { near, normalize, streamSeed } from './latent.ts';
import type { WorldSpec } from './spec.ts';

const USER_STREAM = 10;
/** Old intents that a user can come back to. */
const MAX_MEMORIES = 64;

export interface Intent {
  topic: number;
  point: Float32Array;
}
interface Memory extends Intent {
  /** The user's event count when this intent ended. */
  endedAtEvent: number;
}

export interface User {
  index: number;
  id: string;
  interests: number[];
  /** Unit vector of the long-term taste. */
  taste: Float32Array;
  clickPropensity: number;
  buyPropensity: number;
  /** exp(normal / 2): a median user has 1. */
  priceSensitivity: number;
  intent: Intent;
  /** normalize(weight * intent + (1 - weight) * taste): what the user wants now. */
  want: Float32Array;
  /** Exposures, clicks and buys so far. */
  events: number;
  memories: Memory[];
  random: SeededRandom;
}

/** Users come into being at their first request; each has an own random stream, so the order does not matter. */
export class Users {
  readonly #spec: WorldSpec;
  readonly #topics: Topics;
  readonly #seed: number;
  readonly #run: number;
  readonly #users = new Map<number, User>();
  /** Cumulated activity by rank, the last value is the sum. */
  readonly #activity: Float64Array;

  /** @param run numbers the start of the process: tastes stay the same, intents are drawn anew */
  constructor(spec: WorldSpec, topics: Topics, seed: number, run: number) {
    this.#spec = spec;
    this.#topics = topics;
    this.#seed = seed;
    this.#run = run;
    this.#activity = new Float64Array(spec.users);
    let sum = 0;
    for (let u = 0; u < spec.users; u++) {
      sum += (u + 1) ** -spec.activityExponent;
      this.#activity[u] = sum;
    }
  }

  /** A user by activity. */
  draw(random: SeededRandom): User {
    const at = random.next() * this.#activity.at(-1)!;
    let low = 0;
    let high = this.#activity.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#activity[middle]! <= at) low = middle + 1;
      else high = middle;
    }
    return this.at(low);
  }

  /** @throws Error for an id that is not of this world */
  byId(userId: string): User {
    const index = Number(userId.slice(1));
    if (userId[0] !== 'u' || !Number.isInteger(index) || index < 0 || index >= this.#spec.users)
      throw new Error(`No user ${userId} in this world: ids are u0 to u${this.#spec.users - 1}`);
    return this.at(index);
  }

  at(index: number): User {
    let user = this.#users.get(index);
    if (!user) {
      user = this.#make(index);
      this.#users.set(index, user);
    }
    return user;
  }

  /** Called at each request: keeps the intent, or ends it and begins another. */
  live(user: User): void {
    const { intent, options } = this.#spec;
    if (!options.shortTermIntent || user.random.next() >= 1 / intent.stayRequests) return;
    user.memories.push({ ...user.intent, endedAtEvent: user.events });
    if (user.memories.length > MAX_MEMORIES) user.memories.shift();
    this.#want(user, this.#remember(user) ?? this.#newIntent(user));
  }

  #remember(user: User): Intent | undefined {
    const { intent, options } = this.#spec;
    if (!options.longMemory || user.random.next() >= intent.returnShare) return undefined;
    const old = user.memories.filter((m) => {
      const age = user.events - m.endedAtEvent;
      return age >= intent.returnMinEvents && age <= intent.returnMaxEvents;
    });
    if (old.length === 0) return undefined;
    const memory = user.random.pick(old);
    // it comes back into memory when it ends again, with its new age
    user.memories.splice(user.memories.indexOf(memory), 1);
    return memory;
  }

  #newIntent(user: User): Intent {
    const { intent, topics, itemSpread } = this.#spec;
    const topic =
      user.random.next() < intent.exploreShare ? user.random.int(topics) : user.random.pick(user.interests);
    return { topic, point: near(this.#topics.centres[topic]!, itemSpread, user.random) };
  }

  #want(user: User, intent: Intent): void {
    const weight = this.#spec.options.shortTermIntent ? this.#spec.intent.weight : 0;
    user.intent = intent;
    for (let d = 0; d < user.want.length; d++)
      user.want[d] = weight * intent.point[d]! + (1 - weight) * user.taste[d]!;
    normalize(user.want);
  }

  #make(index: number): User {
    const spec = this.#spec;
    const random = new SeededRandom(streamSeed(this.#seed, USER_STREAM, index));
    const count = spec.interests.min + random.int(spec.interests.max - spec.interests.min + 1);
    const interests = Array.from({ length: count }, () => random.int(spec.topics));
    const taste = new Float32Array(spec.latentDim);
    for (const topic of interests) {
      const weight = 0.5 + random.next();
      const centre = this.#topics.centres[topic]!;
      for (let d = 0; d < taste.length; d++) taste[d]! += weight * centre[d]!;
    }
    normalize(taste);
    const rho = spec.options.weakCorrelation ? spec.correlation : 1;
    const click = random.normal();
    const buy = rho * click + Math.sqrt(1 - rho * rho) * random.normal();
    const user: User = {
      index,
      id: `u${index}`,
      interests,
      taste,
      clickPropensity: spec.click.userSd * click,
      buyPropensity: spec.buy.userSd * buy,
      priceSensitivity: Math.exp(random.normal() / 2),
      intent: { topic: interests[0]!, point: taste },
      want: new Float32Array(spec.latentDim),
      events: 0,
      memories: [],
      random: new SeededRandom(streamSeed(this.#seed, USER_STREAM + 1 + this.#run, index)),
    };
    this.#want(user, this.#newIntent(user));
    return user;
  }
}
