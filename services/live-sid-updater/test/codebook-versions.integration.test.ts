import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Codebook as CodebookRecord } from '@onemall/contracts';
import { stackVectors, trainCodebook, writeCodebook } from '@onemall/quantization';
import { startTestStack, type TestStack, vectorOf } from '@onemall/testkit';
import { Harness } from './broker-harness.ts';
import { item } from './items.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

const products = Array.from({ length: 50 }, (_, n) => item(`p${n}`, { embedding: vectorOf(n) }));

/** Publishes version 2 of a scenario's codebook, as a training job does, and again to retire the one before, as a job does too. */
async function publishSecond(h: Harness, scenario: string, oldestVersion = 1): Promise<void> {
  const codebook = await trainCodebook(stackVectors(products.map((p) => p.embedding!)), {
    scenario,
    version: 2,
    numCodes: [16, 16, 16],
    lastLevel: 'kmeans',
    cutoffMs: 1_000,
    seed: 99,
  });
  const ref = await h.artifacts.put(`codebooks/${scenario}/2`, writeCodebook(codebook));
  const value: CodebookRecord = {
    scenario,
    codebookVersion: 2,
    ...ref,
    numCodes: [16, 16, 16],
    dim: 8,
    metrics: {},
    towerVersion: null,
    towerUri: null,
    oldestVersion,
    cutoffMs: 1_000,
    createdMs: 2_000,
  };
  await h.writer.send([{ topic: 'codebooks', key: scenario, value }]);
}

async function bootstrapped(more: Record<string, string>): Promise<Harness> {
  const h = await Harness.create(stack, more);
  await h.put(...products, item('room', { scenario: 'live_stream' }));
  await h.start();
  await h.until('codebooks', () => h.codebooks.length === 2);
  await h.change('room', 'ADDED', 'p1', 5_000);
  await h.until('the first version', () => h.room('room') !== null && h.itemSids.length === products.length);
  return h;
}

describe('a second codebook version', () => {
  test('is served beside the first one where it is followed', async (t) => {
    const h = await bootstrapped({});
    t.after(() => h.close());
    await publishSecond(h, 'product_card');
    await publishSecond(h, 'live_stream');
    const second = () => h.itemSids.filter((r) => r.key.endsWith(':2'));
    const rooms = (version: number) =>
      h.liveSids.filter((r) => r.key === `room:${version}` && r.value).map((r) => r.value!);
    await h.until('SIDs of version 2', () => second().length === products.length && rooms(2).length === 1);
    assert.ok(second().every(({ value }) => value!.reason === 'NEW_CODEBOOK' && value!.validFromMs === 0));
    assert.deepEqual(
      [rooms(2)[0]!.reason, rooms(2)[0]!.validFromMs, rooms(2)[0]!.sellingItemIds],
      ['NEW_CODEBOOK', 0, ['p1']],
    );
    await h.change('room', 'ADDED', 'p2', 6_000);
    await h.until('both versions follow', () => rooms(1).length === 2 && rooms(2).length === 2);
    assert.deepEqual([rooms(1)[1]!.validFromMs, rooms(2)[1]!.validFromMs], [6_000, 6_000]);
    assert.equal(rooms(2)[1]!.sid!.codebookVersion, 2);
    await h.put(item('new', { embedding: vectorOf(7) }));
    await h.until('a new item in both', () =>
      ['new:1', 'new:2'].every((key) => h.itemSids.some((r) => r.key === key)),
    );

    // Nobody reads version 1 any more: its SIDs end, also while rooms and items go on.
    const newest = () => new Map([...h.itemSids, ...h.liveSids].map((r) => [r.key, r.value]));
    const alive = (version: number) =>
      [...newest()].filter(([key, value]) => value !== null && key.endsWith(`:${version}`)).length;
    await publishSecond(h, 'product_card', 2);
    await publishSecond(h, 'live_stream', 2);
    await h.change('room', 'ADDED', 'p3', 7_000);
    await h.until('the end of version 1', () => alive(1) === 0 && rooms(2).length === 3);
    assert.equal(alive(2), products.length + 2);
    const written = h.itemSids.length + h.liveSids.length;
    await h.restart();
    await h.put(item('newer', { embedding: vectorOf(8) }));
    await h.change('room', 'REMOVED', 'p1', 8_000);
    await h.until('version 2 alone', () => newest().has('newer:2') && rooms(2).length === 4);
    assert.deepEqual(rooms(2)[3]!.sellingItemIds, ['p2', 'p3']);
    assert.deepEqual([alive(1), h.itemSids.length + h.liveSids.length], [0, written + 2]);
  });

  test('is left alone where it is not, also by a restart', async (t) => {
    const h = await bootstrapped({ ONEMALL_FOLLOW_NEW_CODEBOOKS: 'false' });
    t.after(() => h.close());
    await publishSecond(h, 'product_card');
    await publishSecond(h, 'live_stream');
    await h.restart();
    await h.change('room', 'ADDED', 'p2', 6_000);
    await h.put(item('new', { embedding: vectorOf(7) }));
    await h.until(
      'version 1 goes on',
      () => h.item('new') !== null && h.room('room')!.sellingItemIds.length === 2,
    );
    assert.ok([...h.itemSids, ...h.liveSids].every((record) => record.key.endsWith(':1')));
    await h.stopServices();
    assert.ok([...h.itemSids, ...h.liveSids].every((record) => record.key.endsWith(':1')));
  });
});
