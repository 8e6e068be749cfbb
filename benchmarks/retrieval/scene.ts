/** A policy of preset small with random weights, a catalogue, and requests: for us in memory, for the peer as files. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { UserHistory } from '@onemall/contracts';
import { type RequestContext, type SidLayout, sidLayout } from '@onemall/features';
import { createRetrievalTrainer } from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import { historyFeeds } from '../../packages/learning/src/models/onemall-feeds.ts';
import { type NumCodes, packSid, unpackSid } from '../../services/retriever/src/stages/build-trie.ts';
import { encodeRequest } from '../../services/retriever/src/stages/encode-request.ts';
import { SidCatalogue } from '../../services/retriever/src/state/sid-catalogue.ts';

export const SCENARIO = 'product_card';
const SCENARIOS = [SCENARIO, 'short_video', 'live_stream'];
export const NOW_MS = 1_700_000_000_000;
const REQUESTS = 64;
const EVENTS = 30;
const WIDTHS = [64, 256, 512, 768];

/** The files of a policy, also with graphs that read whole prefixes. */
export async function policyFiles(numCodes: NumCodes): Promise<Map<string, Uint8Array>> {
  const trainer = await createRetrievalTrainer({
    preset: 'small',
    scenarios: SCENARIOS,
    numCodes: Object.fromEntries(SCENARIOS.map((s) => [s, numCodes])),
    seed: 1,
  });
  const files = await trainer.exportPolicy({
    policyVersion: '0-bench',
    codebookVersions: Object.fromEntries(SCENARIOS.map((s) => [s, 1])),
    beamWidths: WIDTHS,
    plainDecoders: true,
  });
  await trainer.close();
  return files;
}

const itemName = (n: number): string => `item-${n}`;

/** SIDs as codebooks give them: few first codes are full, many are nearly empty (squared uniform numbers). */
export function fillCatalogue(numSids: number, [k1, k2, k3]: NumCodes): SidCatalogue {
  const random = new SeededRandom(2);
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  const seen = new Set<number>();
  while (seen.size < numSids) {
    const sid = {
      scenario: SCENARIO,
      codebookVersion: 1,
      c1: Math.floor(random.next() ** 2 * k1),
      c2: random.int(k2),
      c3: random.int(k3),
    };
    const packed = packSid(sid);
    if (seen.has(packed)) continue;
    const itemId = itemName(seen.size);
    seen.add(packed);
    putItem(catalogue, itemId);
    catalogue.putItemSid(`${itemId}:1`, { itemId, sid, validFromMs: 0, reason: 'NEW_ITEM', createdMs: 0 });
  }
  return catalogue;
}

export function putItem(catalogue: SidCatalogue, itemId: string): void {
  catalogue.putItem(itemId, {
    itemId,
    scenario: SCENARIO,
    validFromMs: 0,
    title: itemId,
    category: `category-${itemId.length}`,
    tags: [],
    priceCents: 100,
    sellerId: 's',
    productId: null,
    contentVideo: false,
    embedding: null,
  });
}

export function requests(numItems: number): RequestContext[] {
  const random = new SeededRandom(3);
  const events = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      itemId: itemName(random.int(numItems)),
      eventTimeMs: NOW_MS - 60_000 * (i + 1),
      category: '',
    }));
  return Array.from({ length: REQUESTS }, () => {
    const history: UserHistory = { exposures: events(EVENTS), clicks: events(12), buys: events(3) };
    return { scenario: SCENARIO, requestTimeMs: NOW_MS, history };
  });
}

/** Everything that peer.py reads. The caller removes the folder. */
export async function writeScene(
  files: ReadonlyMap<string, Uint8Array>,
  catalogue: SidCatalogue,
  numCodes: NumCodes,
  asked: readonly RequestContext[],
): Promise<{ folder: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-bench-retrieval-'));
  const put = (name: string, data: Uint8Array | string) => writeFile(path.join(folder, name), data);
  const bytes = (data: Int32Array) => new Uint8Array(Int32Array.from(data).buffer);
  for (const [name, data] of files) await put(name, data);
  const trie = catalogue.trie(SCENARIO, 1, numCodes, NOW_MS);
  for (const name of ['codes1', 'starts2', 'codes2', 'starts3', 'codes3'] as const)
    await put(`${name}.bin`, bytes(trie[name]));
  const manifest = JSON.parse(Buffer.from(files.get('policy.json')!).toString()) as Parameters<
    typeof encodeRequest
  >[0];
  const layout: SidLayout = sidLayout(manifest.scenarios, manifest.numCodes);
  const histories = asked.map((request) => {
    const tensors = encodeRequest(manifest, layout, request, (version, itemId, timeMs) =>
      catalogue.sidAsOf(version, itemId, timeMs),
    );
    const feeds = historyFeeds([tensors], 1, manifest.historyLength);
    const names = ['codes1', 'codes2', 'codes3', 'ages', 'scenarios'];
    return Buffer.concat(names.map((name) => bytes(feeds[`history.${name}`] as Int32Array)));
  });
  await put('histories.bin', Buffer.concat(histories));
  const scene = {
    scenario: manifest.scenarios.indexOf(SCENARIO),
    offsets: layout.offsets.get(SCENARIO),
    numCodes,
  };
  await put('scene.json', JSON.stringify(scene));
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** Leaves of SIDs, to compare with what the peer found. */
export function leavesOf(packed: Float64Array, all: Float64Array): number[] {
  const leaf = new Map(Array.from(all, (sid, i) => [sid, i]));
  return Array.from(packed, (sid) => {
    const at = leaf.get(sid);
    if (at === undefined) throw new Error(`${JSON.stringify(unpackSid(sid))} is no SID of the trie`);
    return at;
  });
}
