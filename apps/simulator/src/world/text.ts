/** Titles and tags that tell the latent vector, noisily. */
import type { SeededRandom } from '@onemall/service-kit';

export const CATEGORIES: readonly (readonly [name: string, ...nouns: string[]])[] = [
  ['Shoes', 'sneaker', 'boot', 'sandal', 'loafer', 'trainer', 'slipper'],
  ['Kitchen', 'pan', 'knife', 'kettle', 'blender', 'teapot', 'grater'],
  ['Garden', 'planter', 'hose', 'shears', 'trowel', 'lantern', 'trellis'],
  ['Audio', 'headphones', 'speaker', 'microphone', 'turntable', 'earbuds', 'radio'],
  ['Toys', 'puzzle', 'doll', 'blocks', 'kite', 'robot', 'train set'],
  ['Beauty', 'serum', 'lipstick', 'mask', 'brush', 'cream', 'perfume'],
  ['Outdoor', 'tent', 'backpack', 'stove', 'hammock', 'compass', 'flask'],
  ['Pets', 'leash', 'bowl', 'cat tree', 'aquarium', 'treats', 'carrier'],
  ['Office', 'lamp', 'notebook', 'chair', 'keyboard', 'pen', 'organizer'],
  ['Sports', 'racket', 'mat', 'dumbbell', 'helmet', 'ball', 'gloves'],
  ['Home', 'blanket', 'mirror', 'vase', 'rug', 'curtain', 'candle'],
  ['Food', 'tea', 'coffee', 'noodles', 'honey', 'spice', 'chocolate'],
];
/** Categories of short videos that entertain; tokenizer pairs leave them out. */
export const CONTENT_CATEGORIES: readonly string[] = ['News', 'Comedy', 'Dance', 'Film/TV', 'Selfie'];
const STYLES =
  'nordic rustic retro minimal floral sporty classic bold pastel vintage urban cosy alpine coastal folk neon art-deco bamboo linen marble denim velvet oak copper matte glossy striped plaid woven ceramic leather canvas'.split(
    ' ',
  );
const PLUS =
  'large heavy warm bright soft fast deep round long wide strong rich smooth quiet sharp fresh thick tall flexible open'.split(
    ' ',
  );
const MINUS =
  'small light cool dark firm slow flat square short slim gentle plain rough loud blunt aged thin low rigid closed'.split(
    ' ',
  );
const FILLERS = 'new best original quality gift family daily home premium popular offer choice'.split(' ');

export interface TopicWords {
  category: string;
  nouns: readonly string[];
  styles: readonly string[];
}

/** A topic is a category with its own two nouns and three styles. */
export function topicWords(topic: number, random: SeededRandom): TopicWords {
  const [category, ...nouns] = CATEGORIES[topic % CATEGORIES.length]!;
  return {
    category,
    nouns: random.shuffle(nouns.slice()).slice(0, 2),
    styles: random.shuffle(STYLES.slice()).slice(0, 3),
  };
}

/** The words for the three dimensions in which an item lies furthest from its topic's centre, largest first. */
export function attributeWords(latent: Float32Array, centre: Float32Array): string[] {
  return [...latent.keys()]
    .sort((a, b) => Math.abs(latent[b]! - centre[b]!) - Math.abs(latent[a]! - centre[a]!))
    .slice(0, 3)
    .map((d) => {
      const round = Math.floor(d / PLUS.length);
      const word = (latent[d]! >= centre[d]! ? PLUS : MINUS)[d % PLUS.length]!;
      return round === 0 ? word : `${word}-${round + 1}`;
    });
}

/** @param wordNoise chance of each word to be replaced by one that says nothing */
export function writeTitle(
  words: TopicWords,
  attributes: readonly string[],
  wordNoise: number,
  random: SeededRandom,
): string {
  const all = [...attributes, random.pick(words.styles), random.pick(words.nouns)];
  return all.map((w) => (random.next() < wordNoise ? random.pick(FILLERS) : w)).join(' ');
}
