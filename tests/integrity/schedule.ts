/** A seeded schedule: traffic of its own kind, with faults at places of their own, then the oracle. */
import { SeededRandom } from '@onemall/service-kit';
import type { TestStack } from '@onemall/testkit';
import type { Verdict } from '../../services/sample-assembler/oracle/verify.ts';
import { type Arrival, makeTraffic } from '../../services/sample-assembler/test/traffic.ts';
import { FAULTS, type FaultName, happen, type World } from './faults.ts';
import { Lab } from './lab.ts';

export interface Plan {
  seed: number;
  numInstances: number;
  numRequests: number;
  lateShare: number;
  copyShare: number;
  unnamedShare: number;
  orphanShare: number;
  poison: number;
  env: Record<string, string>;
  /** Share of the traffic after which each happens. */
  faults: { at: number; name: FaultName }[];
}

const NAMES = Object.keys(FAULTS) as FaultName[];

export function planSchedule(seed: number): Plan {
  const random = new SeededRandom(seed);
  const faults: Plan['faults'] = Array.from({ length: 1 + random.int(3) }, () => ({
    at: 0.05 + 0.8 * random.next(),
    name: random.pick(NAMES),
  }));
  return {
    seed,
    numInstances: 1 + random.int(2),
    // Three to four events each, so that the largest has less than 20,000.
    numRequests: random.next() < 0.1 ? 4_000 : 200 + random.int(800),
    lateShare: random.pick([0, 0, 0.01, 0.1]),
    copyShare: random.pick([0.02, 0.1, 0.5]),
    unnamedShare: random.pick([0, 0.2, 0.6]),
    orphanShare: random.pick([0, 0.02, 0.1]),
    poison: random.pick([0, 0, 20]),
    env: {
      ONEMALL_COMMIT_INTERVAL_MS: random.pick(['20', '100', '400']),
      ONEMALL_EMIT: random.pick(['positive,final', 'positive,final', 'final']),
      ONEMALL_HISTORY_LENGTH: random.pick(['0', '3', '20']),
      ONEMALL_INPUT_FRESHNESS_MS: random.pick(['200', '1000']),
      ONEMALL_MAX_DELAY_MS: random.pick(['300', '1000', '600000']),
      ONEMALL_MAX_BUFFERED_RECORDS: random.pick(['100', '20000']),
      // Of one or two users, so that the histories of all others lie on disk; or of all.
      ONEMALL_HISTORY_CACHE_MB: random.pick(['0.001', '32']),
    },
    faults: faults.sort((a, b) => a.at - b.at),
  };
}

/** @returns the oracle's verdict on everything that was sent */
export async function runSchedule(stack: TestStack, plan: Plan): Promise<Verdict> {
  const lab = await Lab.create(stack, plan.env);
  try {
    const world: World = { lab, random: new SeededRandom(plan.seed + 1_000_000), maxInstances: 3 };
    const requestEveryMs = Math.min(20, Math.floor(50_000 / plan.numRequests));
    const startMs = Date.now() - 55_000;
    const numUsers = Math.max(12, Math.floor(plan.numRequests / 20));
    const arrivals = makeTraffic({ ...plan, numUsers, requestEveryMs, startMs });
    await lab.scene.sendCatalogue(startMs);
    for (let i = 0; i < plan.numInstances; i++) await lab.start();
    const faults = [...plan.faults];
    let happening = Promise.resolve();
    let poisoned = 0;
    await lab.send(arrivals, async (sent) => {
      for (; faults.length > 0 && sent >= faults[0]!.at * arrivals.length; faults.shift()) {
        const { name } = faults[0]!;
        // One after the other, while the traffic goes on.
        happening = happening.then(() => happen(name, world));
        happening.catch(() => {}); // awaited below
      }
      while (poisoned < plan.poison && sent >= (poisoned / plan.poison) * arrivals.length)
        await sendPoison(lab, poisoned++, arrivals);
    });
    await happening;
    if (lab.instances.length === 0) await lab.start();
    await lab.settle(150_000);
    return await lab.verdict();
  } finally {
    await lab.close();
  }
}

/** Bytes of nothing, a schema id that nobody knows, values that break the rules. */
async function sendPoison(lab: Lab, n: number, arrivals: readonly Arrival[]): Promise<void> {
  const { topic, value } = arrivals[(n * 37) % arrivals.length]!;
  const key = value.userId;
  const bad = [
    { topic, key, valueBytes: Buffer.from('poison') },
    { topic, key, valueBytes: Buffer.from([0, 0x7f, 0, 0, n, 1, 2]) },
    { topic, key: 'someone-else', value },
    { topic, key, value: { ...value, eventTimeMs: Date.now() + 3_600_000 } },
  ][n % 4]!;
  await lab.scene.writer.send([bad as never]);
}
