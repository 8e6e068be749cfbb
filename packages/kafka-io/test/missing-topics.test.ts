import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MissingTopics } from '../src/missing-topics.ts';

const unknown = Object.assign(new Error('This server does not host this topic-partition'), {
  type: 'UNKNOWN_TOPIC_OR_PARTITION',
});
const away = new Error('connect ECONNREFUSED');

test('a topic is missing once brokers have said so for thirty seconds', () => {
  const missing = new MissingTopics();
  assert.deepEqual(
    [5_000, 9_000, 34_999, 35_000].map((atMs) => missing.isCertain(unknown, atMs)),
    [false, false, false, true],
  );
});

test('time without a broker says nothing of a topic, and one that has just come back is given as long again', () => {
  const missing = new MissingTopics();
  assert.equal(missing.isCertain(unknown, 0), false);
  assert.equal(missing.isCertain(away, 60_000), false);
  assert.equal(missing.isCertain(unknown, 60_001), false);
  assert.equal(missing.isCertain(unknown, 90_000), false);
  assert.equal(missing.isCertain(unknown, 90_001), true);
});

test('an answer that leaves a topic out says as much as an error', () => {
  const missing = new MissingTopics();
  assert.equal(missing.isCertainOfAnswer(0), false);
  assert.equal(missing.isCertainOfAnswer(29_999), false);
  assert.equal(missing.isCertainOfAnswer(30_000), true);
});
