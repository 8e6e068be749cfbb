import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Buy, Click, Exposure, Item, ProductChange, RewardBatch } from '../src/index.ts';
import {
  BadRecordError,
  type BadRecordReason,
  MAX_ID_LENGTH,
  type TopicName,
  type TopicValues,
  validateValue,
} from '../src/index.ts';

const APPENDED_MS = 1_700_000_000_000;
const rules = { scenarios: new Set(['product_card', 'short_video']), allowedClockSkewMs: 60_000 };

const exposure: Exposure = {
  exposureId: 'r1:0',
  userId: 'u1',
  itemId: 'i1',
  scenario: 'product_card',
  eventTimeMs: APPENDED_MS,
  requestId: 'r1',
  requestTimeMs: APPENDED_MS - 50,
  position: 0,
  watchMs: null,
  priceCents: 100,
  requestFeatures: { ints: [1], floats: [0.5] },
};
const click: Click = {
  actionId: 'a1',
  exposureId: null,
  userId: 'u1',
  itemId: 'i1',
  eventTimeMs: APPENDED_MS,
};
const buy: Buy = { ...click, priceCents: 0, quantity: 1 };
const item: Item = {
  itemId: 'i1',
  scenario: 'short_video',
  validFromMs: 0,
  title: '',
  category: '',
  tags: [],
  priceCents: 0,
  sellerId: 's1',
  productId: null,
  contentVideo: false,
  embedding: [0.25, -0.5],
};
const change: ProductChange = {
  changeId: 'c1',
  liveId: 'l1',
  kind: 'ADDED',
  itemId: 'i1',
  eventTimeMs: APPENDED_MS,
};

const check = <T extends TopicName>(
  topic: T,
  key: string,
  value: TopicValues[T] | null,
  timestampMs = APPENDED_MS,
) => validateValue(topic, { key, value, timestampMs }, rules);

const refuses = <T extends TopicName>(
  reason: BadRecordReason,
  field: RegExp,
  topic: T,
  key: string,
  value: TopicValues[T],
) => {
  assert.throws(
    () => check(topic, key, value),
    (error) => {
      assert.ok(error instanceof BadRecordError);
      assert.equal(error.reason, reason);
      assert.match(error.message, field);
      return true;
    },
  );
};

describe('validateValue', () => {
  it('takes good records of every input topic', () => {
    check('exposures', 'u1', exposure);
    check('clicks', 'u1', click);
    check('buys', 'u1', buy);
    check('items', 'i1', item);
    check('live-product-changes', 'l1', change);
    check('live-product-changes', 'l1', { ...change, kind: 'ROOM_ENDED', itemId: null });
  });

  it('has nothing to check about a tombstone', () => {
    check('items', 'anything', null);
  });

  it('TOO_LARGE', () => {
    const long = 'x'.repeat(MAX_ID_LENGTH + 1);
    refuses('TOO_LARGE', /itemId/, 'exposures', 'u1', { ...exposure, itemId: long });
    refuses('TOO_LARGE', /actionId/, 'clicks', 'u1', { ...click, actionId: long });
    refuses('TOO_LARGE', /category/, 'items', item.itemId, { ...item, category: long });
  });

  it('EMPTY_ID', () => {
    for (const field of ['exposureId', 'userId', 'itemId', 'requestId'] as const)
      refuses('EMPTY_ID', new RegExp(field), 'exposures', 'u1', { ...exposure, [field]: '' });
    for (const field of ['actionId', 'exposureId', 'userId', 'itemId'] as const) {
      refuses('EMPTY_ID', new RegExp(field), 'clicks', 'u1', { ...click, [field]: '' });
      refuses('EMPTY_ID', new RegExp(field), 'buys', 'u1', { ...buy, [field]: '' });
    }
    refuses('EMPTY_ID', /itemId/, 'items', '', { ...item, itemId: '' });
    refuses('EMPTY_ID', /changeId/, 'live-product-changes', 'l1', { ...change, changeId: '' });
    refuses('EMPTY_ID', /kind ADDED, got null/, 'live-product-changes', 'l1', { ...change, itemId: null });
  });

  it('KEY_MISMATCH names both', () => {
    refuses('KEY_MISMATCH', /"u1", got "other"/, 'exposures', 'other', exposure);
    refuses('KEY_MISMATCH', /"u1", got ""/, 'clicks', '', click);
    refuses('KEY_MISMATCH', /itemId "i1"/, 'items', 'i2', item);
    refuses('KEY_MISMATCH', /liveId "l1"/, 'live-product-changes', 'l2', change);
  });

  it('UNKNOWN_SCENARIO lists the configured ones', () => {
    refuses('UNKNOWN_SCENARIO', /product_card, short_video, got "tv"/, 'exposures', 'u1', {
      ...exposure,
      scenario: 'tv',
    });
    refuses('UNKNOWN_SCENARIO', /got ""/, 'items', 'i1', { ...item, scenario: '' });
    refuses('UNKNOWN_SCENARIO', /"tv"/, 'reward-batches', 'r1', {
      ...{ scenario: 'tv', candidates: [] },
    } as unknown as RewardBatch);
  });

  it('NOT_A_NUMBER names the place', () => {
    refuses('NOT_A_NUMBER', /floats\[1\], got NaN/, 'exposures', 'u1', {
      ...exposure,
      requestFeatures: { ints: [], floats: [1, Number.NaN] },
    });
    refuses('NOT_A_NUMBER', /embedding\[0\], got Infinity/, 'items', 'i1', {
      ...item,
      embedding: [Number.POSITIVE_INFINITY],
    });
    refuses('NOT_A_NUMBER', /candidates\[0\]\.reward, got NaN/, 'reward-batches', 'r1', {
      scenario: 'product_card',
      candidates: [{ tokenLogProbs: [-1], pCtr: 0, pCtcvr: 0, pEgpm: 0, reward: Number.NaN }],
    } as RewardBatch);
  });

  it('NEGATIVE_VALUE', () => {
    refuses('NEGATIVE_VALUE', /priceCents of at least 0, got -1/, 'exposures', 'u1', {
      ...exposure,
      priceCents: -1,
    });
    refuses('NEGATIVE_VALUE', /position/, 'exposures', 'u1', { ...exposure, position: -1 });
    refuses('NEGATIVE_VALUE', /watchMs/, 'exposures', 'u1', { ...exposure, watchMs: -5 });
    refuses('NEGATIVE_VALUE', /priceCents/, 'buys', 'u1', { ...buy, priceCents: -1 });
    refuses('NEGATIVE_VALUE', /quantity of at least 1, got 0/, 'buys', 'u1', { ...buy, quantity: 0 });
    refuses('NEGATIVE_VALUE', /priceCents/, 'items', 'i1', { ...item, priceCents: -1 });
  });

  it('TIME_OUT_OF_RANGE: before the epoch, or past the append time and the allowed skew', () => {
    const latest = APPENDED_MS + rules.allowedClockSkewMs;
    check('clicks', 'u1', { ...click, eventTimeMs: latest });
    check('clicks', 'u1', { ...click, eventTimeMs: 0 });
    for (const eventTimeMs of [latest + 1, -1])
      refuses('TIME_OUT_OF_RANGE', /eventTimeMs in \[0, /, 'clicks', 'u1', { ...click, eventTimeMs });
    refuses('TIME_OUT_OF_RANGE', /requestTimeMs/, 'exposures', 'u1', {
      ...exposure,
      requestTimeMs: latest + 1,
    });
    refuses('TIME_OUT_OF_RANGE', /validFromMs/, 'items', 'i1', { ...item, validFromMs: latest + 1 });
    refuses('TIME_OUT_OF_RANGE', /eventTimeMs/, 'live-product-changes', 'l1', {
      ...change,
      eventTimeMs: -1,
    });
  });

  it('does not judge the time of a record that carries none', () => {
    check('clicks', 'u1', { ...click, eventTimeMs: APPENDED_MS * 2 }, -1);
  });

  it('leaves metrics alone: one that could not be computed is NaN', () => {
    check('training-metrics', 'x', {
      source: 's',
      scenario: '',
      version: '',
      step: 0,
      values: { loss: Number.NaN },
      createdMs: 0,
    });
  });
});
