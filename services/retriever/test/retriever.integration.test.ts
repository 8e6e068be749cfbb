import assert from 'node:assert/strict';
import { appendFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isHeldBack } from '@onemall/service-kit';
import { startTestStack, type TestStack } from '@onemall/testkit';
import { Harness, itemSidOf, NUM_ITEMS } from './harness.ts';

let stack: TestStack | undefined;
before(async () => {
  stack = await startTestStack();
});
after(() => stack?.stop());

describe('retriever', () => {
  test('serves the newest policy that loads, through a corrupt one, under load, until it stops', async (t) => {
    const h = await Harness.create(stack!);
    t.after(() => h.close());
    await h.putCatalogue();
    const service = await h.start();

    const early = await h.retrieve();
    assert.equal(early.status, 503);
    assert.match(early.body.error!, /No policy is loaded yet/);

    await h.publishPolicy(1);
    await h.untilValue('models_loaded', 1);
    const first = await h.retrieve({ k: 50, beamWidth: 64 });
    assert.equal(first.status, 200, first.body.error);
    assert.equal(first.body.policyVersion, '1-test');
    const ids = first.body.items!.map((i) => i.itemId);
    assert.equal(new Set(ids).size, 50);
    for (const { itemId, sid } of first.body.items!) {
      const { c1, c2, c3 } = itemSidOf(Number(itemId.slice(5)));
      assert.deepEqual(sid, { c1, c2, c3 });
    }
    const again = await h.retrieve({ k: 50, beamWidth: 64 });
    assert.deepEqual(again.body.items, first.body.items, 'the same question has the same answer');

    // Bytes that do not have the published sha256 are refused; the old policy goes on.
    await h.publishPolicy(2, (folder) => appendFile(path.join(folder, 'policy.json'), ' '));
    await h.untilValue('models_refused', 1);
    assert.equal((await h.retrieve()).body.policyVersion, '1-test');
    assert.match(service.logTail(50), /corrupt/);

    let swapped = false;
    const versions = new Set<string>();
    const statuses = new Map<number, number>();
    const clients = Array.from({ length: 4 }, async () => {
      let afterSwap = 0;
      while (afterSwap < 5) {
        const { status, body } = await h.retrieve();
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        if (body.policyVersion) versions.add(body.policyVersion);
        if (swapped) afterSwap++;
      }
    });
    await h.publishPolicy(3);
    await h.untilValue('models_loaded', 2);
    swapped = true;
    await Promise.all(clients);
    assert.deepEqual([...statuses.keys()], [200], 'no request failed while policies were swapped');
    assert.deepEqual([...versions].sort(), ['1-test', '3-test']);

    // A room comes on the air and ends.
    assert.equal((await h.retrieve({ scenario: 'live_stream' })).status, 503);
    await h.putRoom('room', [1, 2, 3]);
    await h.until('the room is served', async () => {
      const { body } = await h.retrieve({ scenario: 'live_stream' });
      return body.items?.[0]?.itemId === 'room';
    });
    await h.putRoom('room', null);
    await h.until(
      'the room is gone',
      async () => (await h.retrieve({ scenario: 'live_stream' })).status === 503,
    );
    const bad = await h.retrieve({ k: 0 });
    assert.equal(bad.status, 400);
    assert.match(bad.body.error!, /body\.k must be >= 1, got 0/);
    assert.equal(await service.stop(), 0);
  });

  test('makes one rollout per sampled request, measures held-back ones, buries what is bad', async (t) => {
    const h = await Harness.create(stack!);
    t.after(() => h.close());
    await h.putCatalogue();
    await h.publishPolicy(7);
    let service = await h.start();
    await h.untilValue('models_loaded', 1);

    // Every request has two FINAL records, and a CLICK that is none of ours.
    const requests = Array.from({ length: 30 }, (_, n) => `request-${n}`);
    for (const [n, requestId] of requests.entries()) {
      await h.putSample(n, {}, { requestId, kind: 'CLICK' });
      await h.putSample(n, {}, { requestId });
      await h.putSample(n, {}, { requestId });
    }
    const held = requests.filter((id) => isHeldBack(id, 0.3));
    const sampled = requests.filter((id) => !isHeldBack(id, 0.3));
    assert.ok(held.length > 3);
    await h.until('all rollouts', () => h.rollouts.length >= sampled.length);
    await h.untilValue('measured_requests', 2 * held.length);
    assert.deepEqual(h.rollouts.map((r) => r.key).sort(), sampled.sort());

    const { value: rollout } = h.rollouts[0]!;
    assert.equal(rollout!.policyVersion, '7-test');
    assert.equal(rollout!.codebookVersion, 1);
    assert.equal(rollout!.candidates.length, 12);
    assert.equal(rollout!.history.clicks[0]!.itemId, 'item-2');
    const sums = rollout!.candidates.map((c) => c.tokenLogProbs.reduce((a, b) => a + b, 0));
    for (const [rank, { c1, c2, c3, itemId, tokenLogProbs }] of rollout!.candidates.entries()) {
      assert.deepEqual(
        { ...itemSidOf(Number(itemId!.slice(5))), c1, c2, c3 },
        itemSidOf(Number(itemId!.slice(5))),
      );
      assert.ok(tokenLogProbs.length === 3 && tokenLogProbs.every((x) => x <= 0));
      if (rank > 0) assert.ok(sums[rank]! <= sums[rank - 1]! + 1e-6, 'best first');
    }

    await h.until('metrics of all held-back requests', () => {
      const measured = h.metrics.reduce((n, m) => n + m.value!.values.requests!, 0);
      return measured === 2 * held.length;
    });
    const { value: metric } = h.metrics[0]!;
    assert.deepEqual([metric!.scenario, metric!.version, metric!.step], ['product_card', '7-test', 7]);
    assert.ok(metric!.values.hr_50! >= metric!.values.hr_10!);
    assert.ok(metric!.values.legality! >= 0 && metric!.values.legality! <= 1);

    // Bad samples become dead letters and the rest flows on.
    await h.putSample(100, { requestFeatures: { ints: [], floats: [Number.NaN] } });
    await h.putSample(101, { scenario: 'cars' });
    await h.until('dead letters', () => h.deadLetters.length === 2);
    assert.deepEqual(h.deadLetters.map((d) => d.value!.reason).sort(), ['NOT_A_NUMBER', 'UNKNOWN_SCENARIO']);
    assert.equal(h.deadLetters[0]!.value!.service, 'retriever');

    // After a kill the group goes on where it was: rollouts of new requests come, those of old ones not twice.
    await service.kill();
    service = await h.start();
    await h.untilValue('models_loaded', 1);
    const fresh = Array.from({ length: 20 }, (_, n) => `fresh-${n}`);
    for (const [n, requestId] of fresh.entries()) await h.putSample(n, {}, { requestId });
    const expected = fresh.filter((id) => !isHeldBack(id, 0.3));
    await h.until('rollouts after the kill', () => {
      const keys = new Set(h.rollouts.map((r) => r.key));
      return expected.every((id) => keys.has(id));
    });
    assert.equal(await service.stop(), 0);
  });

  test('popularity orders the items of one SID, and a restart knows it from the log', async (t) => {
    const h = await Harness.create(stack!, { ONEMALL_ROLLOUT_SHARE: '0', ONEMALL_HELD_BACK_FRACTION: '0' });
    t.after(() => h.close());
    await h.putCatalogue();
    // the same SID as item-0, and fresher
    await h.putItem(80);
    assert.deepEqual(itemSidOf(80), itemSidOf(0));
    await h.publishPolicy(1);
    let service = await h.start();
    await h.untilValue('models_loaded', 1);
    const order = async (): Promise<(string | undefined)[]> => {
      const { body } = await h.retrieve({ k: 61, beamWidth: 64 });
      const ids = body.items!.map((i) => i.itemId);
      return ids.filter((id) => id === 'item-0' || id === 'item-80');
    };
    await h.until('both are served', async () => (await order()).length === 2);
    assert.deepEqual(await order(), ['item-80', 'item-0'], 'equal popularity: the fresher one first');
    for (let n = 0; n < 5; n++) await h.putSample(n, { itemId: 'item-0' });
    await h.until('the clicked one first', async () => (await order())[0] === 'item-0');
    await service.kill();
    service = await h.start();
    await h.untilValue('models_loaded', 1);
    await h.untilValue('popularity_caught_up', 1);
    await h.until('both are served again', async () => (await order()).length === 2);
    assert.deepEqual(await order(), ['item-0', 'item-80']);
    assert.equal(await service.stop(), 0);
  });

  test('rollouts may be drawn without replacement: the same request gives the same draw', async (t) => {
    const h = await Harness.create(stack!, {
      ONEMALL_ROLLOUT_SEARCH: 'sample',
      ONEMALL_HELD_BACK_FRACTION: '0',
    });
    t.after(() => h.close());
    await h.putCatalogue();
    await h.publishPolicy(1);
    let service = await h.start();
    await h.untilValue('models_loaded', 1);
    const nowMs = Date.now();
    const ask = () => h.putSample(1, {}, { requestId: 'the-request', nowMs });
    await ask();
    await h.until('the first rollout', () => h.rollouts.length === 1);
    // a new process has forgotten that it saw the request
    await service.kill();
    service = await h.start();
    await h.untilValue('models_loaded', 1);
    await ask();
    await h.until('the second rollout', () => h.rollouts.length >= 2);
    const [first, second] = h.rollouts.map((r) => r.value!.candidates);
    assert.equal(first!.length, 12);
    assert.deepEqual(
      second!.map(({ c1, c2, c3 }) => [c1, c2, c3]),
      first!.map(({ c1, c2, c3 }) => [c1, c2, c3]),
    );
    const sums = first!.map((c) => c.tokenLogProbs.reduce((a, b) => a + b, 0));
    assert.notDeepEqual(
      sums,
      sums.toSorted((a, b) => b - a),
      'in the order of the draw, which is not that of the beam',
    );
    assert.equal(await service.stop(), 0);
  });

  test('a budget sheds rollouts, and old samples make none', async (t) => {
    const h = await Harness.create(stack!, {
      ONEMALL_ROLLOUT_BUDGET_PER_S: '0.001',
      ONEMALL_HELD_BACK_FRACTION: '0',
    });
    t.after(() => h.close());
    await h.putCatalogue();
    await h.publishPolicy(1);
    const service = await h.start();
    await h.untilValue('models_loaded', 1);
    for (let n = 0; n < 10; n++) await h.putSample(n);
    await h.untilValue('shed_rollouts', 9);
    await h.putSample(10, {}, { timestampMs: Date.now() - 3_600_000 });
    await h.untilValue('rollouts_too_old', 1);
    assert.equal(h.rollouts.length, 1);
    const sids = new Set(Array.from({ length: NUM_ITEMS }, (_, n) => JSON.stringify(itemSidOf(n))));
    await h.untilValue('trie_sids', sids.size);
    assert.equal(await h.value('trie_sids'), sids.size);
    assert.equal(await service.stop(), 0);
  });

  test('a pinned one answers with that policy alone and leaves rollouts to others; a pin on nothing is refused', async (t) => {
    const h = await Harness.create(stack!);
    t.after(() => h.close());
    await h.putCatalogue();
    const { uri, sha256 } = await h.publishPolicy(1);
    await h.publishPolicy(2);
    const base = await h.start({ ONEMALL_PINNED_POLICY: `${uri}@${sha256}` });
    assert.equal((await h.retrieve()).body.policyVersion, '1-test');

    const newest = await h.start();
    await h.untilValue('models_loaded', 1);
    assert.equal((await h.retrieve()).body.policyVersion, '2-test');
    const requests = Array.from({ length: 40 }, (_, n) => `request-${n}`).filter(
      (id) => !isHeldBack(id, 0.3),
    );
    for (const [n, requestId] of requests.entries()) await h.putSample(n, {}, { requestId });
    await h.until('all rollouts', async () => h.rollouts.length >= requests.length);
    assert.equal((await newest.status()).values.rollouts, requests.length);
    assert.equal((await base.status()).in, 0, 'it takes no samples');
    assert.equal((await base.status()).values.models_loaded, 1);
    assert.equal(await base.stop(), 0);

    await assert.rejects(
      h.start({ ONEMALL_PINNED_POLICY: `policies/retriever/9@${sha256}` }),
      /ONEMALL_PINNED_POLICY\) names policies\/retriever\/9, which cannot be served/,
    );
    await assert.rejects(h.start({ ONEMALL_PINNED_POLICY: 'newest' }), /must be URI@SHA256/);
  });
});
