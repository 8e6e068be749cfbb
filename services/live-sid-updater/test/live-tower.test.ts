/** Rooms under a codebook that names a frozen item tower. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Codebook as CodebookRecord } from '@onemall/contracts';
import { createRetrievalTrainer } from '@onemall/learning';
import { LiveTower, towerFiles } from '@onemall/learning/live-tower';
import { LIVE_STREAM, PRODUCT_CARD, stackVectors, trainCodebook, writeCodebook } from '@onemall/quantization';
import { FolderArtifactStore } from '@onemall/service-kit';
import { loadCodebook } from '../src/adapters/codebook-store.ts';
import { item } from './items.ts';
import { Updater } from './updater-without-broker.ts';

const facts = { category: 'mugs', tags: ['blue'], priceCents: 250, sellerId: 'host' };

/** A codebook of version 2 whose artifact carries a tower, as the job writes it. */
async function towered(t: TestContext) {
  const root = await mkdtemp(path.join(tmpdir(), 'onemall-tower-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  const trainer = await createRetrievalTrainer({
    ...{ preset: 'tiny', scenarios: [LIVE_STREAM, PRODUCT_CARD], seed: 3 },
    numCodes: { [LIVE_STREAM]: [4, 4, 4], [PRODUCT_CARD]: [4, 4, 4] },
  });
  const policy = await trainer.exportPolicy({
    policyVersion: '7-abc',
    codebookVersions: { [LIVE_STREAM]: 1, [PRODUCT_CARD]: 1 },
    beamWidths: [4],
  });
  await trainer.close();
  const files = towerFiles(policy);
  assert.deepEqual([...files.keys()].sort(), ['item-tower.onnx', 'policy.json']);
  const tower = await LiveTower.open(files);
  t.after(() => tower.close());
  const rooms = Array.from({ length: 64 }, (_, n) => ({ facts, sellingItemIds: [`p${n}`] }));
  const sidOf = (id: string) => {
    const n = Number(id.slice(1));
    return { scenario: PRODUCT_CARD, c1: n % 4, c2: (n >> 2) % 4, c3: (n >> 4) % 4 };
  };
  const vectors = await tower.embed(rooms, sidOf);
  const codebook = await trainCodebook(stackVectors(vectors.map((v) => v!)), {
    ...{ scenario: LIVE_STREAM, version: 2, numCodes: [4, 4, 4], lastLevel: 'kmeans', cutoffMs: 0, seed: 7 },
  });
  const artifacts = new FolderArtifactStore(root);
  const ref = await artifacts.put('codebooks/live_stream/2', new Map([...writeCodebook(codebook), ...files]));
  const record: CodebookRecord = {
    ...{ scenario: LIVE_STREAM, codebookVersion: 2, ...ref, numCodes: [4, 4, 4], dim: codebook.dim },
    ...{ metrics: {}, towerVersion: '7-abc', towerUri: ref.uri, oldestVersion: 1, cutoffMs: 0, createdMs: 0 },
  };
  return { artifacts, record, tower };
}

test('a room is what the frozen tower makes of it: its facts and the SIDs on sale, then the codebook', async (t) => {
  const { artifacts, record, tower } = await towered(t);
  const updater = new Updater();
  const { state } = updater;
  const served = await loadCodebook(artifacts, record);
  t.after(() => served.encoder.close());
  state.serve(served.encoder, served.tower);
  const room = item('room', { scenario: LIVE_STREAM, ...facts });
  state.takeItem({ key: 'room', value: room, partition: 0, timestampMs: 1 }, 1);
  const inVersion2 = (records: { key: string }[]) => records.filter(({ key }) => key === 'room:2') as never[];
  const sidOf = (id: string) => {
    const sid = state.itemSids.get(id, 1);
    return sid && { scenario: PRODUCT_CARD, c1: sid.c1, c2: sid.c2, c3: sid.c3 };
  };
  const expected = async (sellingItemIds: string[], of = facts) => {
    const [m] = await tower.embed([{ facts: of, sellingItemIds }], sidOf);
    return m && [...(await served.encoder.encode(stackVectors([m])))];
  };
  const codes = () => {
    const sid = state.liveSids.get('room', 2)?.sid;
    return sid ? [sid.c1, sid.c2, sid.c3] : null;
  };

  // The tower reads SIDs, and p1 has none yet; the mean of version 1 needs none.
  await updater.publishRoom('ADDED', 'p1', 1_000, 1_000);
  assert.equal(codes(), null);
  assert.notEqual(state.liveSids.get('room', 1)?.sid, null);
  await updater.publishItem('p1', 2_000);
  const published = await updater.settle(2_000);
  assert.equal(inVersion2(published.records).length, 1, 'the SID of a sold product brings the room along');
  assert.deepEqual(codes(), await expected(['p1']));

  for (let n = 2; n < 12; n++) {
    await updater.publishItem(`p${n}`, 3_000);
    await updater.publishRoom('ADDED', `p${n}`, 3_000 + n, 3_000 + n);
    assert.deepEqual(codes(), await expected(state.liveSids.get('room', 2)!.sellingItemIds));
  }
  const other = { ...facts, category: 'lamps', sellerId: 'other host' };
  state.takeItem({ key: 'room', value: { ...room, ...other }, partition: 0, timestampMs: 4_000 }, 4_000);
  const moved = await updater.settle(4_000);
  assert.deepEqual(codes(), await expected(state.liveSids.get('room', 2)!.sellingItemIds, other));
  assert.equal(moved.modelChanges, 0, 'the tower is frozen: no model moves a SID within a version');
  await updater.publishRoom('ROOM_ENDED', null, 5_000, 5_000);
  assert.equal(state.liveSids.get('room', 2), null);
});

test('a tower that is another one than the record says, or none, is refused', async (t) => {
  const { artifacts, record } = await towered(t);
  await assert.rejects(
    loadCodebook(artifacts, { ...record, towerVersion: '8-def' }),
    /names the tower 8-def of \d+ numbers, the artifact holds 7-abc/,
  );
  const files = await artifacts.get(record);
  files.delete('item-tower.onnx');
  const ref = await artifacts.put('codebooks/live_stream/3', files);
  await assert.rejects(loadCodebook(artifacts, { ...record, ...ref }), /item-tower\.onnx/);
});
