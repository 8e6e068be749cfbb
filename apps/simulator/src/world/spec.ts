/** The parameters of a world: one JSON file in worlds/, validated, with a hash that names it in reports. */
import { createHash } from 'node:crypto';
import { ConfigError, z } from '@onemall/service-kit';

const share = z.number().min(0).max(1);
const positive = z.number().positive();
const count = z.number().int().positive();

/** Every effect of the world can be turned off alone; a comparison that rests on an effect must collapse with it. */
export const worldOptionsShape = z.strictObject({
  /** Off: every item has its own text. */
  nearDuplicates: z.boolean().default(true),
  /** Off: users never come back to an old interest. */
  longMemory: z.boolean().default(true),
  /** Off: the intent is the long-term taste at all times. */
  shortTermIntent: z.boolean().default(true),
  /** Off: affinity is 0 for every user and item, so clicks say nothing about taste. */
  taste: z.boolean().default(true),
  /** Off: text and embeddings show the latent vector without noise. */
  noisyText: z.boolean().default(true),
  /** Off: quality is 0 for all. */
  quality: z.boolean().default(true),
  /** Off: prices do not matter. */
  priceSensitivity: z.boolean().default(true),
  /** Off: what makes a click also makes the buy (correlation 1). */
  weakCorrelation: z.boolean().default(true),
  /** Off: every position is looked at alike. */
  positionBias: z.boolean().default(true),
  /** Off: a room keeps the match of its first products whatever it sells. */
  roomsFollowProducts: z.boolean().default(true),
});
export type WorldOptions = z.infer<typeof worldOptionsShape>;

const response = z.strictObject({
  bias: z.number(),
  affinity: z.number(),
  quality: z.number(),
  price: z.number(),
  /** Standard deviation of the user's own propensity. */
  userSd: z.number().min(0),
});

export const worldShape = z
  .strictObject({
    name: z.string().min(1),
    latentDim: count.min(2),
    /** Length of Item.embedding; 0 leaves it null so that only the text speaks. */
    embeddingDim: z.number().int().min(0),
    /** Standard deviation of the noise per embedding value; a value without noise has about 1 / sqrt(embeddingDim). */
    embeddingNoise: z.number().min(0),
    /** Share of title words that say nothing about the item. */
    wordNoise: share,
    topics: count,
    users: count,
    productCards: count,
    shortVideos: z.number().int().min(0),
    liveRooms: z.number().int().min(0),
    sellers: count,
    /** Length of the random step from a topic's centre to an item. */
    itemSpread: z.number().min(0),
    families: z.strictObject({ share, minSize: count, maxSize: count }),
    contentVideoShare: share,
    price: z.strictObject({ medianCents: count, topicSd: z.number().min(0), itemSd: z.number().min(0) }),
    interests: z.strictObject({ min: count, max: count }),
    /** Activity of the user of rank r is (r + 1) ^ -activityExponent. */
    activityExponent: z.number().min(0),
    intent: z.strictObject({
      /** Mean number of requests that an intent lasts. */
      stayRequests: positive,
      /** Weight of the intent against the long-term taste. */
      weight: share,
      /** Share of new intents outside the user's interests. */
      exploreShare: share,
      /** Share of changes that return to an old intent, where one of the right age exists. */
      returnShare: share,
      /** Age of such an intent in events of the user. */
      returnMinEvents: count,
      returnMaxEvents: count,
    }),
    click: response,
    buy: response,
    /** Loss of attention per ln(1 + position). */
    positionBias: z.number().min(0),
    /** Correlation of click and buy propensities, of users and of items. */
    correlation: share,
    /** The fixed logging policy: weights of the three sources of candidates. */
    policy: z.strictObject({
      taste: z.number().min(0),
      popularity: z.number().min(0),
      random: z.number().min(0),
    }),
    /** Items per request. */
    positions: count,
    /** Weights of the scenarios; those not configured are left out. */
    scenarios: z.strictObject({
      product_card: z.number().min(0),
      short_video: z.number().min(0),
      live_stream: z.number().min(0),
    }),
    /** Mean delays as shares of the scenario's click and buy windows; no delay is longer than 0.9 windows. */
    delays: z.strictObject({ clickShare: share, buyShare: share }),
    rooms: z.strictObject({
      minProducts: count,
      maxProducts: count,
      /** Mean time between changes of one room. */
      changeEveryMs: positive,
      /** Mean life of a room. */
      lifetimeMs: positive,
      /** Chance that an added product moves the room to another topic. */
      topicChange: share,
    }),
    options: worldOptionsShape.prefault({}),
  })
  .refine((w) => w.families.minSize <= w.families.maxSize, 'families.minSize is above maxSize')
  .refine((w) => w.interests.min <= w.interests.max, 'interests.min is above max')
  .refine((w) => w.rooms.minProducts <= w.rooms.maxProducts, 'rooms.minProducts is above maxProducts')
  .refine((w) => w.policy.taste + w.policy.popularity + w.policy.random > 0, 'all policy weights are 0');
export type WorldSpec = z.infer<typeof worldShape>;

/**
 * @param source named in errors
 * @throws ConfigError with one line per wrong key
 */
export function parseWorld(value: unknown, source: string): WorldSpec {
  const parsed = worldShape.safeParse(value);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map((i) => `  ${i.path.join('.') || '(whole file)'}: ${i.message}`);
  throw new ConfigError(`${source} is not a world:\n${lines.join('\n')}`);
}

/** sha256 of the validated parameters, whatever the order or spacing of the file: the frozen name of a world. */
export const worldHash = (spec: WorldSpec): string =>
  createHash('sha256').update(canonical(spec)).digest('hex').slice(0, 16);

function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([k, v]) => `${JSON.stringify(k)}:${canonical(v)}`).join(',')}}`;
}
