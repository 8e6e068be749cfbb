import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError } from '@onemall/service-kit';
import { readWorld } from '../src/adapters/world-file.ts';
import { parseWorld, worldHash } from '../src/world/spec.ts';

test('the presets are worlds, and the evaluation world has the sizes that were promised', () => {
  const demo = readWorld('demo');
  const evaluation = readWorld('evaluation');
  assert.ok(demo.productCards < 5_000);
  assert.deepEqual(
    [evaluation.productCards, evaluation.shortVideos, evaluation.liveRooms],
    [200_000, 200_000, 5_000],
  );
  assert.notEqual(worldHash(demo), worldHash(evaluation));
});

test('the evaluation world is frozen: its figures belong to this hash', () => {
  // a change of the file makes every published table incomparable: make a new world with a new name instead
  assert.equal(worldHash(readWorld('evaluation')), '9385b46d8231d1e1');
});

test('the tenth of the evaluation world differs from it in sizes only', () => {
  const { name, users, topics, productCards, shortVideos, liveRooms, sellers, ...rest } =
    readWorld('evaluation-tenth');
  const whole = readWorld('evaluation');
  assert.equal(name, 'evaluation-tenth');
  const sizes = { users, topics, productCards, shortVideos, liveRooms, sellers };
  const tenths = Object.fromEntries(
    Object.entries(sizes).map(([key]) => [key, whole[key as keyof typeof sizes] / 10]),
  );
  assert.deepEqual(sizes, tenths);
  assert.deepEqual({ ...whole, ...sizes, ...rest, name }, { ...whole, ...sizes, name });
});

test('the hash names the parameters, not their order in the file', () => {
  const demo = readWorld('demo');
  const turned = parseWorld(Object.fromEntries(Object.entries(demo).reverse()), 'turned');
  assert.equal(worldHash(turned), worldHash(demo));
  assert.notEqual(worldHash({ ...demo, users: demo.users + 1 }), worldHash(demo));
});

test('a wrong world is refused with the key, an unknown preset with what exists', () => {
  assert.throws(
    () => parseWorld({ ...readWorld('demo'), users: -3 }, 'mine.json'),
    (error) =>
      error instanceof ConfigError && /mine\.json/.test(error.message) && /users/.test(error.message),
  );
  assert.throws(() => parseWorld({ ...readWorld('demo'), uers: 3 }, 'mine.json'), /uers/);
  assert.throws(() => readWorld('moon'), /No world moon.*demo, evaluation/);
});
