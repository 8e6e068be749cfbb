/** What item-sids and live-sids hold, as far as this process has read or written them. */
import type { ItemSid, LiveSid } from '@onemall/contracts';
import type { PublishedSid } from '../stages/decide-item-sid.ts';

export const sidKey = (id: string, codebookVersion: number): string => `${id}:${codebookVersion}`;

/** @returns the id and the version of a key; an id may hold colons itself */
export function parseSidKey(key: string): { id: string; version: number } {
  const at = key.lastIndexOf(':');
  return { id: key.slice(0, at), version: Number(key.slice(at + 1)) };
}

/**
 * Until when keys with a tombstone had their last value. Kept when the key gets a new value: readers end the old one at
 * the tombstone's timestamp, so nothing that comes after it may be valid earlier.
 */
class SidEnds {
  readonly #endedMs = new Map<string, number>();

  end(key: string, timestampMs: number, last: { validFromMs: number } | undefined): void {
    this.#endedMs.set(key, Math.max(timestampMs, last?.validFromMs ?? 0, this.#endedMs.get(key) ?? 0));
  }
  of(key: string): number | null {
    return this.#endedMs.get(key) ?? null;
  }
}

export class PublishedItemSids {
  readonly #versions = new Map<number, Map<string, PublishedSid & { scenario: string }>>();
  readonly #ends = new SidEnds();

  /** @param timestampMs of the record */
  apply(key: string, value: ItemSid | null, timestampMs: number): void {
    const { id, version } = parseSidKey(key);
    let ofVersion = this.#versions.get(version);
    if (!value) {
      this.#ends.end(key, timestampMs, ofVersion?.get(id));
      ofVersion?.delete(id);
      return;
    }
    if (!ofVersion) {
      ofVersion = new Map();
      this.#versions.set(version, ofVersion);
    }
    const { scenario, c1, c2, c3 } = value.sid;
    ofVersion.set(id, { scenario, c1, c2, c3, validFromMs: value.validFromMs });
  }
  get(itemId: string, version: number): PublishedSid | null {
    return this.#versions.get(version)?.get(itemId) ?? null;
  }
  /** When the SID of an item that was removed ended; null where it never was. */
  endedMs(itemId: string, version: number): number | null {
    return this.#ends.of(sidKey(itemId, version));
  }
  /** Versions in which the item has a SID. */
  versionsOf(itemId: string): number[] {
    return [...this.#versions].filter(([, sids]) => sids.has(itemId)).map(([version]) => version);
  }
  /** Versions in which any item of the scenario has a SID. */
  versionsIn(scenario: string): Set<number> {
    const versions = new Set<number>();
    for (const [version, sids] of this.#versions)
      for (const sid of sids.values())
        if (sid.scenario === scenario) {
          versions.add(version);
          break;
        }
    return versions;
  }
  /** Keys of SIDs in versions of which `is` says so. */
  *keysIn(is: (scenario: string, version: number) => boolean): Iterable<string> {
    for (const [version, sids] of this.#versions)
      for (const [id, { scenario }] of sids) if (is(scenario, version)) yield sidKey(id, version);
  }
  get size(): number {
    let size = 0;
    for (const sids of this.#versions.values()) size += sids.size;
    return size;
  }
  /** Codes of all items of a scenario in a version: int32 [N, 3]. */
  codes(scenario: string, version: number): Int32Array {
    const codes: number[] = [];
    for (const sid of this.#versions.get(version)?.values() ?? [])
      if (sid.scenario === scenario) codes.push(sid.c1, sid.c2, sid.c3);
    return Int32Array.from(codes);
  }
}

export class PublishedLiveSids {
  readonly #records = new Map<string, LiveSid>();
  readonly #ends = new SidEnds();

  /** @param timestampMs of the record */
  apply(key: string, value: LiveSid | null, timestampMs: number): void {
    if (value) {
      this.#records.set(key, value);
      return;
    }
    this.#ends.end(key, timestampMs, this.#records.get(key));
    this.#records.delete(key);
  }
  /** When the SID of a room that closed ended; null where it never did. */
  endedMs(liveId: string, version: number): number | null {
    return this.#ends.of(sidKey(liveId, version));
  }
  get(liveId: string, version: number): LiveSid | null {
    return this.#records.get(sidKey(liveId, version)) ?? null;
  }
  partitionOf(key: string): number | null {
    return this.#records.get(key)?.sourcePartition ?? null;
  }
  /** Records whose changes came from this partition. */
  *ofPartition(
    partition: number,
  ): Iterable<{ key: string; liveId: string; version: number; record: LiveSid }> {
    for (const [key, record] of this.#records)
      if (record.sourcePartition === partition)
        yield { key, record, liveId: record.liveId, version: parseSidKey(key).version };
  }
  has(liveId: string, version: number): boolean {
    return this.#records.has(sidKey(liveId, version));
  }
  versions(): Set<number> {
    return new Set([...this.#records.keys()].map((key) => parseSidKey(key).version));
  }
  codes(version: number): Int32Array {
    const codes: number[] = [];
    for (const { sid } of this.#records.values())
      if (sid?.codebookVersion === version) codes.push(sid.c1, sid.c2, sid.c3);
    return Int32Array.from(codes);
  }
}
