/** Which items and live rooms have a SID in which codebook version. */
import type { Sid } from '@onemall/contracts';
import type { KafkaIo, TableReader } from '@onemall/kafka-io';

type Versions = Readonly<Record<string, number>>;

export class SidCoverage {
  /** version -> id -> scenario; a room that sells nothing known is there without a SID. */
  readonly #scenarioOf = new Map<number, Map<string, string>>();
  #tables: TableReader[] = [];

  static async open(io: KafkaIo, onError: (error: unknown) => void): Promise<SidCoverage> {
    const coverage = new SidCoverage();
    const put = (key: string, sid: Sid | null | undefined): void => {
      const colon = key.lastIndexOf(':');
      const [id, version] = [key.slice(0, colon), Number(key.slice(colon + 1))];
      let ids = coverage.#scenarioOf.get(version);
      if (!ids) {
        ids = new Map();
        coverage.#scenarioOf.set(version, ids);
      }
      if (sid) ids.set(id, sid.scenario);
      else ids.delete(id);
    };
    const onRecord = ({ key, value }: { key: string; value: { sid: Sid | null } | null }): void =>
      put(key, value?.sid);
    coverage.#tables = [
      await io.openTable({ topic: 'item-sids', onRecord, onError }),
      await io.openTable({ topic: 'live-sids', onRecord, onError }),
    ];
    return coverage;
  }

  async readToEnd(): Promise<void> {
    await Promise.all(this.#tables.map((table) => table.readToEnd()));
  }

  /** Items and rooms with a SID in one version of their scenario and none in the other. */
  missing(to: Versions, from: Versions): number {
    let missing = 0;
    for (const [scenario, version] of Object.entries(from)) {
      const there = this.#scenarioOf.get(to[scenario]!);
      for (const [id, itsScenario] of this.#scenarioOf.get(version) ?? [])
        if (itsScenario === scenario && !there?.has(id)) missing++;
    }
    return missing;
  }

  async close(): Promise<void> {
    await Promise.all(this.#tables.map((table) => table.close()));
  }
}
