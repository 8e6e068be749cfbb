import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type SettleOptions, settle } from '../src/settle.ts';

/** One stage whose input and lag follow these lists, one place per poll; a pause is one second. */
function stage(inputs: number[], lags: number[], more: Partial<SettleOptions> = {}) {
  let polls = 0;
  let nowMs = 0;
  const at = (list: number[]): number => list[Math.min(polls, list.length) - 1] ?? 0;
  return {
    options: {
      poll: async () => {
        polls++;
      },
      views: () => [{ state: 'running' as const, in: at(inputs), out: 0, lag: at(lags) }],
      pause: async () => {
        nowMs += 1_000;
      },
      nowMs: () => nowMs,
      untilMs: 20_000,
      stop: new AbortController().signal,
      ...more,
    },
    polls: () => polls,
  };
}

test('it waits for two polls in a row without change and without lag', async () => {
  const { options, polls } = stage([5, 7, 7, 7, 7, 7], [3, 2, 1, 0, 0, 0]);
  await settle(options);
  assert.equal(polls(), 5);
});

test('it gives up at the end of its time', async () => {
  const { options, polls } = stage([1], [1]);
  await settle(options);
  assert.equal(polls(), 20);
});

test('a run that is ended by hand is not waited for', async () => {
  const stop = new AbortController();
  const { options, polls } = stage([1], [1], { stop: stop.signal });
  await settle({
    ...options,
    pause: async () => {
      if (polls() === 3) stop.abort();
    },
  });
  assert.equal(polls(), 3);
});
