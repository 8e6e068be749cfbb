/** What was typed and cannot be meant is refused before anything is simulated. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { world } from '../../src/world/main.ts';

for (const [args, message] of [
  [['--sync', '0'], /--sync takes a whole number of at least 1, got 0/],
  [['--groups', '0'], /--groups takes a whole number of at least 1/],
  [['--group-candidates', '1'], /--group-candidates takes a whole number of at least 2/],
  [['--rl-weight', 'x'], /--rl-weight takes a number of at least 0, got x/],
  [['--rl-weight=-1'], /--rl-weight takes a number of at least 0/],
  [['--requests', '1.5'], /--requests takes a whole number of at least 0, got 1.5/],
] as const)
  test(`rl ${args.join(' ')} is refused`, async () => {
    await assert.rejects(world('rl', args), message);
  });
