/** Each of the sample assembler's twelve invariants has a test that bears its number. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { REPOSITORY_ROOT } from '../../packages/stack/src/index.ts';

const FILES = [
  'services/sample-assembler/test/*.test.ts',
  'packages/event-time/test/*.test.ts',
  'tests/integrity/*.integration.test.ts',
];

test('the twelve invariants of the sample assembler each have a test by name', () => {
  const text = globSync(FILES, { cwd: REPOSITORY_ROOT })
    .map((file) => readFileSync(`${REPOSITORY_ROOT}/${file}`, 'utf8'))
    .join('\n');
  const tested = new Set<number>();
  for (const [, numbers] of text.matchAll(/test\(\s*['"`]invariants? ([\d, and]+):/g))
    for (const [number] of numbers!.matchAll(/\d+/g)) tested.add(Number(number));
  assert.deepEqual(
    [...tested].sort((a, b) => a - b),
    Array.from({ length: 12 }, (_, i) => i + 1),
  );
});
