/** What a sample says of its item is what was valid when its page was requested, also where a SID was taken back. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startTestStack, type TestStack } from '@onemall/testkit';
import type { Arrival } from '../../services/sample-assembler/test/traffic.ts';
import { Lab } from './lab.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

const shown = (itemId: string, requestTimeMs: number, n: number): Arrival => ({
  topic: 'exposures',
  arrivesMs: requestTimeMs,
  value: {
    exposureId: `${itemId} ${n}`,
    userId: `user-${n % 5}`,
    itemId,
    scenario: 'product_card',
    eventTimeMs: requestTimeMs,
    requestId: `request ${itemId} ${n}`,
    requestTimeMs,
    position: 0,
    watchMs: null,
    priceCents: 1,
    requestFeatures: { ints: [], floats: [] },
  },
});

test('the tombstone of a SID ends it from then on: pages shown before keep it, through a crash', async () => {
  const lab = await Lab.create(stack, { ONEMALL_MAX_DELAY_MS: '600000' });
  try {
    const startMs = Date.now() - 20_000;
    await lab.scene.sendCatalogue(startMs);
    const sidOf = (codebookVersion: number, c2: number) => ({
      scenario: 'product_card',
      codebookVersion,
      c1: 2,
      c2,
      c3: 7,
    });
    const put = (codebookVersion: number, c2: number, validFromMs: number) =>
      lab.scene.writer.send([
        {
          topic: 'item-sids',
          key: `item-2:${codebookVersion}`,
          value: {
            itemId: 'item-2',
            sid: sidOf(codebookVersion, c2),
            validFromMs,
            reason: 'NEW_ITEM',
            createdMs: startMs,
          },
        },
      ]);
    await put(2, 5, 0);
    const first = await lab.startAlone();
    await lab.scene.writer.send([
      { topic: 'item-sids', key: 'item-1:1', value: null },
      { topic: 'item-sids', key: 'item-2:2', value: null },
    ]);
    const endMs = new Map(
      (await lab.scene.read('item-sids')).filter((r) => r.value === null).map((r) => [r.key, r.timestampMs]),
    );
    const [one, two] = [endMs.get('item-1:1')!, endMs.get('item-2:2')!];
    // The retired item comes back later under the newer codebook.
    await put(2, 6, two + 3_000);
    const pages = (itemId: string, fromMs: number): Arrival[] =>
      [-2_000, -1, 0, 2_000, 4_000].map((afterMs, n) => shown(itemId, fromMs + afterMs, n));
    const arrivals = [...pages('item-1', one), ...pages('item-2', two)].sort(
      (a, b) => a.arrivesMs - b.arrivesMs,
    );
    await lab.send(arrivals.slice(0, 5));
    await first.kill();
    const heir = await lab.startAlone();
    await lab.send(arrivals.slice(5));
    await lab.settle();
    const samples = await lab.scene.read('training-samples');
    const sids = (itemId: string): (string | null)[] =>
      pages(itemId, 0).map(({ value }) => {
        const mine = samples.filter(
          (s) =>
            s.value!.kind === 'FINAL' &&
            s.value!.exposure.exposureId === (value as { exposureId: string }).exposureId,
        );
        assert.equal(mine.length, 1);
        const { sid } = mine[0]!.value!;
        return sid && `${sid.codebookVersion}:${sid.c2}`;
      });
    assert.deepEqual(sids('item-1'), ['1:1', '1:1', null, null, null]);
    assert.deepEqual(sids('item-2'), ['2:5', '2:5', '1:1', '1:1', '2:6']);
    assert.equal((await heir.status()).values.samples_without_sid, 3);
    const verdict = await lab.verdict();
    assert.deepEqual(verdict.firstDifferences, []);
    assert.equal(verdict.ok, true);
  } finally {
    await lab.close();
  }
});
