/** Product cards and short videos: what is true of them, and what the log shows of it. */
import type { Item } from '@onemall/contracts';
import { SeededRandom } from '@onemall/service-kit';
import { near, randomDirection, streamSeed } from './latent.ts';
import type { WorldSpec } from './spec.ts';
import { attributeWords, CONTENT_CATEGORIES, type TopicWords, topicWords, writeTitle } from './text.ts';

const STREAM = { topics: 1, items: 2, text: 3, projection: 4, order: 5 } as const;

/** What the truth of clicks and buys reads of a thing shown: a row of a latent table and its scalars. */
export interface Shown {
  latent: Float32Array;
  row: number;
  clickQuality: number;
  buyQuality: number;
  relativePrice: number;
  /** Content videos are watched and never bought. */
  sells: boolean;
}

/** Latent topics: centre and usual price. */
export interface Topics {
  centres: Float32Array[];
  words: TopicWords[];
  logPrice: Float64Array;
}

/**
 * Items by index: product cards are 0 .. numProducts - 1, short videos follow. Columns, because the large world has
 * 400,000 of them.
 */
export class Catalogue {
  readonly spec: WorldSpec;
  readonly topics: Topics;
  readonly numProducts: number;
  readonly size: number;
  /** [size, latentDim], rows of length 1. */
  readonly latent: Float32Array;
  readonly topic: Uint16Array;
  readonly priceCents: Int32Array;
  /** ln price - usual ln price of the topic. */
  readonly relativePrice: Float32Array;
  readonly clickQuality: Float32Array;
  readonly buyQuality: Float32Array;
  readonly seller: Int32Array;
  /** Index of the item whose text it shares; its own where none. */
  readonly family: Int32Array;
  /** Product that a video promotes, -1 for cards and content videos. */
  readonly promotes: Int32Array;
  /** Indices from most to least popular, by kind and by kind and topic. */
  readonly productsByPopularity: Int32Array;
  readonly videosByPopularity: Int32Array;
  readonly productsOfTopic: Int32Array[];
  readonly videosOfTopic: Int32Array[];
  readonly #seed: number;
  /** [embeddingDim, latentDim] */
  readonly #projection: Float32Array;

  constructor(spec: WorldSpec, seed: number) {
    this.spec = spec;
    this.#seed = seed;
    const dim = spec.latentDim;
    this.numProducts = spec.productCards;
    this.size = spec.productCards + spec.shortVideos;
    this.latent = new Float32Array(this.size * dim);
    this.topic = new Uint16Array(this.size);
    this.priceCents = new Int32Array(this.size);
    this.relativePrice = new Float32Array(this.size);
    this.clickQuality = new Float32Array(this.size);
    this.buyQuality = new Float32Array(this.size);
    this.seller = new Int32Array(this.size);
    this.family = new Int32Array(this.size);
    this.promotes = new Int32Array(this.size).fill(-1);
    this.topics = makeTopics(spec, new SeededRandom(streamSeed(seed, STREAM.topics, 0)));
    const random = new SeededRandom(streamSeed(seed, STREAM.items, 0));
    this.#makeProducts(random);
    this.#makeVideos(random);
    const projection = new SeededRandom(streamSeed(seed, STREAM.projection, 0));
    this.#projection = Float32Array.from(
      { length: spec.embeddingDim * dim },
      () => projection.normal() / Math.sqrt(spec.embeddingDim),
    );
    const order = new SeededRandom(streamSeed(seed, STREAM.order, 0));
    this.productsByPopularity = shuffledRange(0, this.numProducts, order);
    this.videosByPopularity = shuffledRange(this.numProducts, this.size, order);
    this.productsOfTopic = byTopic(this.productsByPopularity, this.topic, spec.topics);
    this.videosOfTopic = byTopic(this.videosByPopularity, this.topic, spec.topics);
  }

  itemId(index: number): string {
    return index < this.numProducts ? `p${index}` : `v${index - this.numProducts}`;
  }
  /** Index of a product card or video id, -1 for any other. */
  indexOf(itemId: string): number {
    const kind = itemId[0];
    const digits = itemId.slice(1);
    if ((kind !== 'p' && kind !== 'v') || !/^\d+$/.test(digits)) return -1;
    const index = Number(digits) + (kind === 'v' ? this.numProducts : 0);
    return index < (kind === 'v' ? this.size : this.numProducts) ? index : -1;
  }
  latentOf(index: number): Float32Array {
    const dim = this.spec.latentDim;
    return this.latent.subarray(index * dim, (index + 1) * dim);
  }
  isContent(index: number): boolean {
    return index >= this.numProducts && this.promotes[index]! < 0;
  }

  /** What the log shows of an item. Near-duplicates share title, category, tags and embedding. */
  item(index: number, validFromMs: number): Item {
    const { spec } = this;
    const random = new SeededRandom(streamSeed(this.#seed, STREAM.text, this.family[index]!));
    const topic = this.topic[index]!;
    const latent = this.latentOf(index);
    const attributes = attributeWords(latent, this.topics.centres[topic]!);
    const wordNoise = spec.options.noisyText ? spec.wordNoise : 0;
    const title = writeTitle(this.topics.words[topic]!, attributes, wordNoise, random);
    const isVideo = index >= this.numProducts;
    const promoted = this.promotes[index]!;
    return {
      itemId: this.itemId(index),
      scenario: isVideo ? 'short_video' : 'product_card',
      validFromMs,
      title: isVideo ? `watch ${title}` : title,
      ...this.facts(index),
      productId: promoted < 0 ? null : this.itemId(promoted),
      contentVideo: this.isContent(index),
      embedding: spec.embeddingDim === 0 ? null : this.#embed(latent, random),
    };
  }

  /** The fields of an item that samples carry. */
  facts(index: number): Pick<Item, 'category' | 'tags' | 'priceCents' | 'sellerId'> {
    const topic = this.topic[index]!;
    const words = this.topics.words[topic]!;
    const attributes = attributeWords(this.latentOf(index), this.topics.centres[topic]!);
    const content = this.isContent(index);
    return {
      category: content ? CONTENT_CATEGORIES[topic % CONTENT_CATEGORIES.length]! : words.category,
      tags: [words.nouns[0]!, words.styles[0]!, attributes[0]!],
      priceCents: content ? 0 : this.priceCents[index]!,
      sellerId: `s${this.seller[index]}`,
    };
  }

  shown(index: number): Shown {
    const content = this.isContent(index);
    return {
      latent: this.latent,
      row: index,
      clickQuality: this.clickQuality[index]!,
      buyQuality: this.buyQuality[index]!,
      relativePrice: content ? 0 : this.relativePrice[index]!,
      sells: !content,
    };
  }

  /** P z + noise, with P [embeddingDim, latentDim] fixed by the seed. */
  #embed(latent: Float32Array, random: SeededRandom): number[] {
    const { embeddingDim, embeddingNoise, latentDim, options } = this.spec;
    const noise = options.noisyText ? embeddingNoise : 0;
    const out = new Array<number>(embeddingDim);
    for (let e = 0; e < embeddingDim; e++) {
      let sum = noise * random.normal();
      for (let d = 0; d < latentDim; d++) sum += this.#projection[e * latentDim + d]! * latent[d]!;
      out[e] = Math.fround(sum);
    }
    return out;
  }

  #makeProducts(random: SeededRandom): void {
    const { families, topics, itemSpread, options } = this.spec;
    const mean = (families.minSize + families.maxSize) / 2;
    // share of starts that are families such that `share` of the items lie in one
    const familyStart = families.share / (families.share + mean * (1 - families.share));
    for (let i = 0; i < this.numProducts; ) {
      const topic = random.int(topics);
      const latent = near(this.topics.centres[topic]!, itemSpread, random);
      const wanted =
        random.next() < familyStart
          ? families.minSize + random.int(families.maxSize - families.minSize + 1)
          : 1;
      const leader = i;
      for (let k = 0; k < wanted && i < this.numProducts; k++, i++) {
        const own = options.nearDuplicates || k === 0;
        this.#place(i, topic, own ? latent : near(this.topics.centres[topic]!, itemSpread, random), random);
        this.family[i] = options.nearDuplicates ? leader : i;
      }
    }
  }

  /** A video lies near the product that it promotes and carries its price and shop. */
  #makeVideos(random: SeededRandom): void {
    const { contentVideoShare, itemSpread, topics } = this.spec;
    for (let i = this.numProducts; i < this.size; i++) {
      const content = random.next() < contentVideoShare;
      const product = random.int(this.numProducts);
      const topic = content ? random.int(topics) : this.topic[product]!;
      const centre = content ? this.topics.centres[topic]! : this.latentOf(product);
      this.#place(i, topic, near(centre, itemSpread / 2, random), random);
      this.family[i] = i;
      if (content) continue;
      this.promotes[i] = product;
      this.priceCents[i] = this.priceCents[product]!;
      this.relativePrice[i] = this.relativePrice[product]!;
      this.seller[i] = this.seller[product]!;
    }
  }

  #place(index: number, topic: number, latent: Float32Array, random: SeededRandom): void {
    const { price, correlation, options, sellers } = this.spec;
    this.latent.set(latent, index * this.spec.latentDim);
    this.topic[index] = topic;
    this.relativePrice[index] = price.itemSd * random.normal();
    this.priceCents[index] = Math.max(
      1,
      Math.round(Math.exp(this.topics.logPrice[topic]! + this.relativePrice[index]!)),
    );
    const rho = options.weakCorrelation ? correlation : 1;
    const click = random.normal();
    const buy = rho * click + Math.sqrt(1 - rho * rho) * random.normal();
    this.clickQuality[index] = options.quality ? click : 0;
    this.buyQuality[index] = options.quality ? buy : 0;
    this.seller[index] = random.int(sellers);
  }
}

function makeTopics(spec: WorldSpec, random: SeededRandom): Topics {
  const topics: Topics = { centres: [], words: [], logPrice: new Float64Array(spec.topics) };
  for (let t = 0; t < spec.topics; t++) {
    topics.centres.push(randomDirection(spec.latentDim, random));
    topics.words.push(topicWords(t, random));
    topics.logPrice[t] = Math.log(spec.price.medianCents) + spec.price.topicSd * random.normal();
  }
  return topics;
}

function shuffledRange(from: number, to: number, random: SeededRandom): Int32Array {
  return Int32Array.from(random.shuffle(Array.from({ length: to - from }, (_, i) => from + i)));
}

function byTopic(order: Int32Array, topic: Uint16Array, topics: number): Int32Array[] {
  const lists: number[][] = Array.from({ length: topics }, () => []);
  for (const index of order) lists[topic[index]!]!.push(index);
  return lists.map((l) => Int32Array.from(l));
}
