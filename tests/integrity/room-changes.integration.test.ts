/** One live room through five changes of its products: whoever shows its SID shows the one that is valid then. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Click, Exposure, ProductChangeKind } from '@onemall/contracts';
import { encode, readCodebook, roomVector, stackVectors } from '@onemall/quantization';
import { startTestStack, type TestStack, vectorOf } from '@onemall/testkit';
import { codesOf, gauge, newest, PipelineScene, productItem, retrieve } from './pipeline-scene.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

const START_MS = 1_700_000_000_000;
/** Longer than the windows, so that each step's exposures close with the events of the next one. */
const STEP_MS = 10_000;
const SCENARIOS = ['live_stream', 'product_card'];
const STEPS: { kind: ProductChangeKind; product: number; selling: number[]; explaining: number }[] = [
  { kind: 'ADDED', product: 1, selling: [1], explaining: -1 },
  { kind: 'ADDED', product: 7, selling: [1, 7], explaining: -1 },
  { kind: 'EXPLAINING', product: 7, selling: [1, 7], explaining: 1 },
  { kind: 'ADDED', product: 20, selling: [1, 7, 20], explaining: 1 },
  { kind: 'REMOVED', product: 7, selling: [1, 20], explaining: -1 },
];
const timeOf = (step: number): number => START_MS + (step + 1) * STEP_MS;

const exposure = (exposureId: string, requestTimeMs: number, eventTimeMs: number): Exposure => ({
  ...{ exposureId, userId: 'user', itemId: 'room', scenario: 'live_stream', eventTimeMs, requestTimeMs },
  ...{ requestId: exposureId, position: 0, watchMs: null, priceCents: 100 },
  requestFeatures: { ints: [], floats: [] },
});
const clickOn = ({ exposureId, eventTimeMs }: Exposure): Click => ({
  actionId: `click-${exposureId}`,
  exposureId,
  userId: 'user',
  itemId: 'room',
  eventTimeMs: eventTimeMs + 50,
});

test('samples, the trie and the metrics show at each of five product changes the SID that is valid then', async (t) => {
  const scene = await PipelineScene.create(stack, { scenarios: SCENARIOS });
  t.after(() => scene.close());
  const products = Array.from({ length: 50 }, (_, n) => productItem(n));
  const room = { scenario: 'live_stream', embedding: null };
  await scene.put(
    ...products,
    productItem(0, { ...room, itemId: 'room' }),
    productItem(0, { ...room, itemId: 'other' }),
  );
  const [liveSids, codebooks, samples, metrics] = [
    await scene.follow('live-sids'),
    await scene.follow('codebooks'),
    await scene.follow('training-samples'),
    await scene.follow('sid-metrics'),
  ];
  // Side by side: what they wait for comes while they start.
  const starting = Promise.all([scene.start('sample-assembler'), scene.start('retriever')]);
  starting.catch(() => {}); // awaited below
  const updater = await scene.start('live-sid-updater');
  await scene.change('other', 'ADDED', 'p30', START_MS);
  await scene.until('codebooks and the first room', () => newest(liveSids, 'other:1'));
  const records = SCENARIOS.map((scenario) => newest(codebooks, scenario)!);
  const codebook = readCodebook(await scene.artifacts.get(records[0]!));
  await scene.publishPolicy(records);
  const [, retriever] = await starting;
  await scene.until('the policy', () => gauge(retriever, 'models_loaded'));

  const shown: { exposure: Exposure; codes: number[]; selling: string[] }[] = [];
  let before: number[] | null = null;
  for (const [step, { kind, product, selling, explaining }] of STEPS.entries()) {
    // What the room is now, by the codebook itself.
    const m = roomVector(
      selling.map((n) => Float32Array.from(vectorOf(n))),
      explaining,
    )!;
    const codes = [...(await encode(codebook, stackVectors([m])))];
    const sellingIds = selling.map((n) => `p${n}`);
    assert.notDeepEqual(codes, before, 'the change moves the room, or the test says nothing');

    const atMs = timeOf(step);
    await scene.change('room', kind, `p${product}`, atMs);
    await scene.until(`live SID of change ${step + 1}`, () => {
      const value = newest(liveSids, 'room:1');
      return value && String(codesOf(value.sid)) === String(codes);
    });
    const value = newest(liveSids, 'room:1')!;
    assert.deepEqual([value.validFromMs, value.sellingItemIds], [step === 0 ? 0 : atMs, sellingIds]);

    // The trie: the room stands under its SID of now and under no other one, its neighbour where it was.
    await scene.until(`the trie of change ${step + 1}`, async () => {
      const { body } = await retrieve(retriever, 'live_stream');
      const found = body.items?.filter((item) => item.itemId === 'room') ?? [];
      assert.ok(found.length <= 1, JSON.stringify(body));
      if (found.length === 0 || String(codesOf(found[0]!.sid)) !== String(codes)) return false;
      const other = body.items!.find((item) => item.itemId === 'other');
      assert.deepEqual(codesOf(other?.sid), codesOf(newest(liveSids, 'other:1')!.sid));
      return true;
    });

    // Metrics: a first SID is no change; each later step is one, caused by a product.
    await scene.until(`the metrics of change ${step + 1}`, async () => {
      const changes = await gauge(updater, 'live_sid_changes');
      const written = metrics.findLast(({ value: point }) => point?.scenario === '')?.value?.values;
      return changes === step && written?.liveSidChanges === step;
    });
    assert.ok(!(await gauge(updater, 'live_sid_model_change_per_minute')), 'no codebook moved a SID');

    // One page asked for a moment before the change and seen after it, one asked for at the change.
    const stale = exposure(`stale-${step}`, atMs - 1, atMs + 500);
    const fresh = exposure(`fresh-${step}`, atMs, atMs + 600);
    const previous = STEPS[step - 1];
    shown.push(
      // The first SID of a room is valid from 0.
      {
        exposure: stale,
        codes: before ?? codes,
        selling: previous ? previous.selling.map((n) => `p${n}`) : sellingIds,
      },
      { exposure: fresh, codes, selling: sellingIds },
    );
    // What comes after them lets them leave.
    const next = exposure(`next-${step}`, atMs + 3_000, atMs + 3_000);
    await scene.writer.send(
      [stale, fresh, next].flatMap((page) => [
        { topic: 'exposures' as const, key: 'user', value: page },
        { topic: 'clicks' as const, key: 'user', value: clickOn(page) },
      ]),
    );
    await scene.until(`the positives of change ${step + 1}`, () =>
      [stale, fresh].every(({ exposureId }) => samplesOf(exposureId).length > 0),
    );
    before = codes;
  }

  // Events after the windows close the last pages.
  const closing = exposure('closing', timeOf(6), timeOf(6));
  await scene.writer.send([
    { topic: 'exposures', key: 'user', value: closing },
    { topic: 'clicks', key: 'user', value: clickOn(closing) },
  ]);
  await scene.until('all FINAL records', () =>
    shown.every(({ exposure: { exposureId } }) => samplesOf(exposureId).some((s) => s.kind === 'FINAL')),
  );
  for (const { exposure: page, codes, selling } of shown)
    for (const sample of samplesOf(page.exposureId)) {
      const what = `${page.exposureId}, ${sample.kind}`;
      assert.deepEqual(codesOf(sample.sid), codes, what);
      assert.deepEqual(sample.item?.sellingItemIds, selling, what);
      assert.equal(sample.sid?.codebookVersion, 1, what);
    }
  assert.ok(shown.every(({ exposure: { exposureId } }) => samplesOf(exposureId).length === 2));

  function samplesOf(exposureId: string) {
    return samples.flatMap(({ value }) => (value?.exposure.exposureId === exposureId ? [value] : []));
  }
});
