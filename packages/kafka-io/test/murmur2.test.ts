import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { murmur2, partitionOf } from '../src/murmur2.ts';

const slowTwin = createRequire(import.meta.url)('kafkajs/src/producer/partitioners/default/murmur2') as (
  key: Buffer,
) => number;

describe('murmur2', () => {
  it('gives the values of the Java client (UtilsTest.testMurmur2)', () => {
    const vectors: [string, number][] = [
      ['21', -973932308],
      ['foobar', -790332482],
      ['a-little-bit-long-string', -985981536],
      ['a-little-bit-longer-string', -1486304829],
      ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ];
    for (const [key, hash] of vectors) assert.equal(murmur2(Buffer.from(key)), hash, key);
    assert.equal(murmur2(Buffer.from('abc')), 479470107);
  });

  it('agrees with kafkajs for any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        assert.equal(murmur2(bytes), slowTwin(Buffer.from(bytes)) | 0);
      }),
      { seed: 1, numRuns: 1_000 },
    );
  });

  it('gives partitions in range, also for negative hashes', () => {
    assert.ok(murmur2(Buffer.from('21')) < 0);
    assert.equal(partitionOf(Buffer.from('21'), 4), (-973932308 & 0x7fffffff) % 4);
  });
});
