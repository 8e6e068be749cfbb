import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import {
  Catalogue,
  type CatalogueItem,
  characterNgrams,
  ItemRefusedError,
  roomVector,
  textEmbedding,
  videoVector,
} from '../src/index.ts';

const item = (itemId: string, more: Partial<CatalogueItem> = {}): CatalogueItem => ({
  itemId,
  scenario: 'product_card',
  validFromMs: 1,
  title: `title of ${itemId}`,
  category: 'cups',
  tags: [],
  productId: null,
  embedding: null,
  ...more,
});
const cosine = (a: Float32Array, b: Float32Array): number => a.reduce((sum, v, d) => sum + v * b[d]!, 0);

describe('textEmbedding', () => {
  test('has length 1, and equal text gives equal vectors whatever the id', () => {
    fc.assert(
      fc.property(
        fc.record({
          title: fc.string(),
          category: fc.string(),
          tags: fc.array(fc.string(), { maxLength: 4 }),
        }),
        fc.integer({ min: 1, max: 100 }),
        (text, dim) => {
          const vector = textEmbedding({ itemId: 'a', ...text }, dim);
          assert.equal(vector.length, dim);
          assert.ok(Math.abs(cosine(vector, vector) - 1) < 1e-5);
          if (text.title.match(/[\p{L}\p{N}]/u))
            assert.deepEqual(textEmbedding({ itemId: 'b', ...text }, dim), vector);
        },
      ),
      { seed: 21 },
    );
  });

  test('alike texts lie closer than others', () => {
    const of = (title: string) => textEmbedding({ itemId: 'x', title, category: '', tags: [] }, 256);
    const cup = of('blue ceramic coffee cup');
    assert.ok(cosine(cup, of('red ceramic coffee cups')) > 0.5);
    assert.ok(Math.abs(cosine(cup, of('winter jacket, waterproof'))) < 0.3);
  });

  test('an item without text is told apart by its id', () => {
    const of = (itemId: string) => textEmbedding({ itemId, title: '', category: '', tags: [] }, 64);
    assert.notDeepEqual(of('1'), of('2'));
  });

  test('stays what it was: SIDs of restarted services depend on it', () => {
    const vector = textEmbedding(
      { itemId: 'x', title: 'Kaffeetasse 茶杯', category: 'cups', tags: ['new'] },
      4,
    );
    assert.deepEqual(
      Array.from(vector, (v) => v.toFixed(4)),
      GOLDEN,
    );
  });

  test('n-grams know the borders of words', () => {
    assert.deepEqual([...characterNgrams('Cup!').keys()], ['_cu', 'cup', 'up_', '_cup', 'cup_', '_cup_']);
    assert.equal(characterNgrams('cup cup').get('cup'), 2);
  });
});
const GOLDEN = ['0.7950', '-0.2393', '0.5034', '0.2393'];

describe('vectors by scenario', () => {
  test('a video is its product and itself; zeros stand for an unknown product', () => {
    assert.deepEqual([...videoVector(Float32Array.of(1, 2), Float32Array.of(3), 2)], [1, 2, 3]);
    assert.deepEqual([...videoVector(null, Float32Array.of(3), 2)], [0, 0, 3]);
  });

  test('a room is the mean of its products, the explained one twice', () => {
    const a = Float32Array.of(1, 0);
    const b = Float32Array.of(0, 1);
    assert.deepEqual([...roomVector([a, b, null], -1)!], [0.5, 0.5]);
    assert.deepEqual([...roomVector([a, b], 1)!], [...Float32Array.of(1 / 3, 2 / 3)]);
    assert.equal(roomVector([null], 0), null);
    assert.throws(() => roomVector([a, Float32Array.of(1)], -1), /one length, got 2 and 1/);
  });
});

describe('Catalogue', () => {
  test('names the items whose vector a change moves', () => {
    const catalogue = new Catalogue(8);
    assert.deepEqual(catalogue.put(item('v', { scenario: 'short_video', productId: 'p' })), ['v']);
    const alone = catalogue.vector('v')!;
    assert.ok(alone.subarray(0, 8).every((x) => x === 0));
    assert.deepEqual(catalogue.put(item('p')), ['p', 'v']);
    assert.deepEqual(catalogue.vector('v')!.subarray(0, 8), catalogue.vector('p'));
    assert.deepEqual(catalogue.put(item('p', { validFromMs: 9 })), [], 'a price alone moves nothing');
    assert.equal(catalogue.validFromMs('p'), 9);
    assert.deepEqual(catalogue.put(item('p', { title: 'other' })), ['p', 'v']);
    assert.deepEqual(catalogue.remove('p'), ['p', 'v']);
    assert.deepEqual(catalogue.remove('p'), []);
    assert.deepEqual(catalogue.vector('v'), alone);
    catalogue.put(item('v', { scenario: 'short_video', productId: 'q' }));
    assert.deepEqual(catalogue.put(item('p')), ['p'], 'the video promotes another product now');
  });

  test('keeps embeddings of one length per scenario, and text embeddings follow', () => {
    const catalogue = new Catalogue(8);
    catalogue.put(item('t'));
    assert.equal(catalogue.vector('t')!.length, 8);
    catalogue.put(item('e', { embedding: [1, 2, 3] }));
    assert.equal(catalogue.vector('t')!.length, 3);
    const refused = (embedding: number[], reason: string) =>
      assert.throws(
        () => catalogue.put(item('x', { embedding })),
        (error) => error instanceof ItemRefusedError && error.reason === reason,
      );
    refused([1, 2], 'WRONG_DIMENSION');
    refused([], 'WRONG_DIMENSION');
    refused([1, Number.NaN, 3], 'NOT_A_NUMBER');
    assert.equal(catalogue.has('x'), false);
    assert.equal(catalogue.vectorDim('short_video'), 8 + 3);
  });

  test('training vectors do not depend on the order of arrival', () => {
    const items = Array.from({ length: 30 }, (_, i) => item(`p${i}`, { category: `c${i % 3}` }));
    for (const scenario of ['product_card', 'live_stream']) {
      const vectors = [items, items.toReversed()].map((list) => {
        const catalogue = new Catalogue(8);
        for (const one of list) catalogue.put(one);
        return catalogue.trainingVectors(scenario, new SeededRandom(1), 20)!;
      });
      assert.equal(vectors[0]!.numVectors, 20);
      assert.deepEqual(vectors[0], vectors[1]);
    }
    assert.equal(new Catalogue(8).trainingVectors('product_card', new SeededRandom(1), 20), null);
  });
});
