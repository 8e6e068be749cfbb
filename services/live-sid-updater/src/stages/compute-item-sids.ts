import type { ItemSid } from '@onemall/contracts';
import { type CodebookEncoder, NUM_LEVELS, stackVectors } from '@onemall/quantization';
import { sidKey } from '../state/published.ts';
import type { UpdaterState } from '../state/updater-state.ts';
import { decideItemSid } from './decide-item-sid.ts';

export interface ItemSidRecord {
  topic: 'item-sids';
  key: string;
  value: ItemSid | null;
  /** Readers end a removed item's SID here. */
  timestampMs: number;
}

/** Records that bring item-sids up to the catalogue for these items: new and changed SIDs, tombstones of removed items. */
export async function computeItemSids(
  state: UpdaterState,
  itemIds: readonly string[],
  nowMs: number,
): Promise<ItemSidRecord[]> {
  const { catalogue, itemSids } = state;
  const records: ItemSidRecord[] = [];
  const byScenario = new Map<string, string[]>();
  for (const itemId of itemIds) {
    const scenario = catalogue.scenarioOf(itemId);
    if (scenario === null) {
      for (const version of itemSids.versionsOf(itemId))
        records.push({ topic: 'item-sids', key: sidKey(itemId, version), value: null, timestampMs: nowMs });
      continue;
    }
    const ofScenario = byScenario.get(scenario);
    if (ofScenario) ofScenario.push(itemId);
    else byScenario.set(scenario, [itemId]);
  }
  for (const [scenario, ids] of byScenario)
    for (const encoder of state.encoders(scenario))
      records.push(...(await computeInVersion(state, encoder, ids, nowMs)));
  return records;
}

async function computeInVersion(
  state: UpdaterState,
  encoder: CodebookEncoder,
  itemIds: readonly string[],
  nowMs: number,
): Promise<ItemSidRecord[]> {
  const { catalogue, itemSids } = state;
  await catalogue.embedTexts(itemIds);
  const vectors = itemIds.map((itemId) => catalogue.vector(itemId));
  const encodable = itemIds.filter((_, i) => vectors[i] !== null);
  if (encodable.length === 0) return [];
  // Read beside the vectors: a newer version of an item may come while they are encoded.
  const validFromMs = encodable.map((itemId) => catalogue.validFromMs(itemId));
  const codes = await encoder.encode(stackVectors(vectors.filter((v) => v !== null)));
  const { scenario, version: codebookVersion } = encoder.codebook;
  const records: ItemSidRecord[] = [];
  for (const [i, itemId] of encodable.entries()) {
    const at = i * NUM_LEVELS;
    const sid = { scenario, codebookVersion, c1: codes[at]!, c2: codes[at + 1]!, c3: codes[at + 2]! };
    const elsewhere = itemSids.versionsOf(itemId).some((version) => version < codebookVersion);
    const value = decideItemSid({
      itemId,
      sid,
      before: itemSids.get(itemId, codebookVersion),
      endedMs: itemSids.endedMs(itemId, codebookVersion),
      itemValidFromMs: validFromMs[i]!,
      firstReason: elsewhere ? 'NEW_CODEBOOK' : 'NEW_ITEM',
      nowMs,
    });
    if (value)
      records.push({ topic: 'item-sids', key: sidKey(itemId, codebookVersion), value, timestampMs: nowMs });
  }
  return records;
}
