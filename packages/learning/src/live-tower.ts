/**
 * The item tower as live codebooks use it: the vector m of a room from its own features and the SIDs of the products that
 * it is selling, its own SID left out (model.md, Live rooms). A codebook made from these vectors carries the tower's files
 * beside its own, so that the two cannot part: the tower stays what it was until the next codebook version.
 */
import { itemTensors, type SidCodes, type SidLayout, sidLayout } from '@onemall/features';
import type { ItemTowerRuntime } from './policy-ports.ts';
import { type Files, loadItemTower } from './published.ts';
import { readPolicyManifest } from './published-manifest.ts';
import { PublishedModelError } from './trainer-ports.ts';

export type { SidCodes } from '@onemall/features';

const LIVE_STREAM = 'live_stream';
const MANIFEST = 'policy.json';

/** Features of a room's own item. */
export interface RoomFacts {
  category: string;
  tags: readonly string[];
  priceCents: number;
  sellerId: string;
}
export interface TowerRoom {
  facts: RoomFacts;
  sellingItemIds: readonly string[];
}

/** The two files of a published policy that a live codebook takes along. @throws PublishedModelError */
export function towerFiles(policy: Files): Map<string, Uint8Array> {
  const { files } = readPolicyManifest(policy);
  const tower = files['item-tower'];
  const bytes = tower === undefined ? undefined : policy.get(tower);
  if (!tower || !bytes)
    throw new PublishedModelError(`The policy has no item tower; it holds ${[...policy.keys()].join(', ')}`);
  return new Map([
    [MANIFEST, policy.get(MANIFEST)!],
    [tower, bytes],
  ]);
}

export class LiveTower {
  /** Of the policy that the tower is from. */
  readonly version: string;
  readonly dim: number;
  /** Codebook versions, by scenario, of the SIDs that it reads. */
  readonly codebookVersions: Readonly<Record<string, number>>;
  readonly #tower: ItemTowerRuntime;
  readonly #layout: SidLayout;

  private constructor(tower: ItemTowerRuntime) {
    const { manifest, dim } = tower;
    this.version = manifest.policyVersion;
    this.dim = dim;
    this.codebookVersions = manifest.codebookVersions;
    this.#tower = tower;
    this.#layout = sidLayout(manifest.scenarios, manifest.numCodes);
  }

  /** @throws PublishedModelError where the files are no tower, or one that knows no live rooms */
  static async open(files: Files): Promise<LiveTower> {
    const tower = new LiveTower(await loadItemTower(files));
    if (tower.#layout.offsets.has(LIVE_STREAM)) return tower;
    await tower.close();
    throw new PublishedModelError(
      `The tower of policy ${tower.version} knows ${tower.#layout.scenarios.join(', ')}, not ${LIVE_STREAM}`,
    );
  }

  /**
   * Vectors of the rooms, float32 [dim] each; null for a room without a SID of any product on sale.
   * @param sidOf newest SID of a product in `codebookVersions`
   */
  async embed(
    rooms: readonly TowerRoom[],
    sidOf: (itemId: string) => SidCodes | null,
  ): Promise<(Float32Array | null)[]> {
    const known = rooms.map(({ sellingItemIds }) => sellingItemIds.some((id) => sidOf(id) !== null));
    const tensors = rooms
      .filter((_, i) => known[i])
      .map(({ facts, sellingItemIds }) => {
        const features = {
          ...{ category: facts.category, tags: [...facts.tags], sellerId: facts.sellerId },
          ...{ priceCents: facts.priceCents, sellingItemIds: [...sellingItemIds], validFromMs: 0 },
        };
        return itemTensors({ scenario: LIVE_STREAM, features, sid: null }, sidOf, { layout: this.#layout });
      });
    const vectors = await this.#tower.embed(tensors);
    let row = 0;
    return known.map((is) => (is ? vectors.slice(row * this.dim, ++row * this.dim) : null));
  }

  close(): Promise<void> {
    return this.#tower.close();
  }
}
