/** What a codebook of live rooms is trained on once a policy exists: its item tower over drawn rooms. */
import type { Item } from '@onemall/contracts';
import { LiveTower, type RoomFacts, type TowerRoom, towerFiles } from '@onemall/learning/live-tower';
import { type Catalogue, LIVE_STREAM, PRODUCT_CARD, stackVectors, type Vectors } from '@onemall/quantization';
import { SeededRandom } from '@onemall/service-kit';
import { readTable } from '../adapters/read-table.ts';
import { type JobContext, JobRefusedError } from './job.ts';

export interface TowerVectors {
  vectors: Vectors;
  /** Files that go beside the codebook. */
  files: Map<string, Uint8Array>;
  /** Policy that the tower is from. */
  version: string;
}

/** Rooms embedded at once. */
const CHUNK = 4_096;

/**
 * @returns null where no policy with live rooms is in use: rooms then are the mean of their products
 * @throws JobRefusedError where too few products have a SID in the tower's codebook version
 */
export async function liveTowerVectors(
  { artifacts, config, kafka, log, stopping }: JobContext,
  catalogue: Catalogue,
  items: ReadonlyMap<string, Item>,
): Promise<TowerVectors | null> {
  const policy = config.liveTower ? (await readTable(kafka, 'policy-versions')).get('RETRIEVER') : undefined;
  const productVersion = policy?.codebookVersions[PRODUCT_CARD];
  if (!policy || productVersion === undefined || policy.codebookVersions[LIVE_STREAM] === undefined)
    return null;
  const files = towerFiles(await artifacts.get(policy));
  const sids = await readTable(kafka, 'item-sids');
  const sidOf = (itemId: string) => sids.get(`${itemId}:${productVersion}`)?.sid ?? null;
  const rooms = drawnRooms(catalogue, items, new SeededRandom(config.seed), config.maxTrainingVectors);
  const tower = await LiveTower.open(files);
  try {
    const vectors: Float32Array[] = [];
    for (let at = 0; at < rooms.length; at += CHUNK) {
      stopping.throwIfAborted();
      for (const vector of await tower.embed(rooms.slice(at, at + CHUNK), sidOf))
        if (vector) vectors.push(vector);
    }
    if (vectors.length < config.minItemsForCodebook)
      throw new JobRefusedError(
        `${vectors.length} of ${rooms.length} drawn rooms sell a product with a SID in codebook version ${productVersion}, which the tower of policy ${tower.version} reads; at least ${config.minItemsForCodebook} are needed`,
      );
    log.info({ policyVersion: tower.version, rooms: vectors.length }, 'rooms from the item tower');
    return { vectors: stackVectors(vectors), files, version: tower.version };
  } finally {
    await tower.close();
  }
}

/** Rooms of the catalogue's products; what is known of rooms themselves goes round among them. */
function drawnRooms(
  catalogue: Catalogue,
  items: ReadonlyMap<string, Item>,
  random: SeededRandom,
  maxRooms: number,
): TowerRoom[] {
  const known: RoomFacts[] = [...catalogue.ids(LIVE_STREAM)].sort().map((id) => items.get(id)!);
  return catalogue.drawnRooms(random, maxRooms).map((sellingItemIds, n) => ({
    facts: known.length > 0 ? known[n % known.length]! : items.get(sellingItemIds[0]!)!,
    sellingItemIds,
  }));
}
