/** What may happen to instances while traffic flows. Each fault leaves at least one instance behind that works or will. */
import { rm } from 'node:fs/promises';
import type { SeededRandom } from '@onemall/service-kit';
import type { Hold } from '@onemall/testkit';
import { type Instance, type Lab, LOGS, NUM_PARTITIONS } from './lab.ts';
import { damage, snapshotFolders, snapshotsOf } from './snapshot-folders.ts';

export interface World {
  lab: Lab;
  random: SeededRandom;
  maxInstances: number;
  /** Lives through everything that ends others, so that its memory can be watched. */
  spared?: Instance;
}
export type Fault = (world: World) => Promise<void>;

/** A partition that has nothing to commit never gets to the place where it is to be stopped. */
const PATIENCE_MS = 4_000;

const during = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
function someone({ lab, random, spared }: World): Instance | undefined {
  const others = lab.instances.filter((instance) => instance !== spared);
  return others.length > 0 ? random.pick(others) : undefined;
}

async function reached(hold: Hold): Promise<void> {
  await Promise.race([hold.held.catch(() => {}), during(PATIENCE_MS)]);
}

async function replace(world: World, victim: Instance, end: 'kill' | 'stop'): Promise<void> {
  await victim[end]();
  await world.lab.start();
}

const killAround =
  (side: 'request' | 'answer'): Fault =>
  async (world) => {
    const victim = someone(world);
    if (!victim) return;
    const hold = victim.proxy.hold('EndTxn', side, { skip: world.random.int(4) });
    await reached(hold);
    await replace(world, victim, 'kill');
    hold.release();
  };

export const FAULTS = {
  kill: async (world) => {
    const victim = someone(world);
    if (victim) await replace(world, victim, 'kill');
  },
  'kill before EndTxn': killAround('request'),
  'kill after EndTxn': killAround('answer'),
  'lost answer to EndTxn': async (world) => {
    const victim = someone(world);
    if (!victim) return;
    const hold = victim.proxy.hold('EndTxn', 'answer', { skip: world.random.int(4) });
    await reached(hold);
    victim.proxy.cut();
    hold.release();
  },
  'lost answer to Produce': async (world) => {
    const victim = someone(world);
    if (!victim) return;
    const hold = victim.proxy.hold('Produce', 'answer', { skip: world.random.int(4) });
    await reached(hold);
    victim.proxy.cut();
    hold.release();
  },
  // Longer than a session sometimes: then it is a zombie when it wakes.
  pause: async (world) => {
    const victim = someone(world);
    if (!victim) return;
    victim.pause();
    await during(300 + world.random.int(5_000));
    victim.resume();
  },
  'stop and start': async (world) => {
    const victim = someone(world);
    if (victim) await replace(world, victim, 'stop');
  },
  'one more': async ({ lab, maxInstances }) => {
    if (lab.instances.length < maxInstances) await lab.start();
  },
  'one less': async (world) => {
    if (world.lab.instances.length > 1) await someone(world)?.stop();
  },
  'cut connections': async (world) => {
    someone(world)?.proxy.cut();
  },
  'broker out of reach': async (world) => {
    const victim = someone(world);
    if (!victim) return;
    victim.proxy.refuse();
    await during(200 + world.random.int(3_000));
    victim.proxy.accept();
  },
  'leader away': async (world) => {
    const victim = someone(world);
    if (!victim) return;
    victim.proxy.loseLeaders([world.lab.physical(world.random.pick(LOGS))]);
    await during(200 + world.random.int(2_500));
    victim.proxy.findLeaders();
  },
  // While an instance is gone: its successors find no snapshot, or one that is refused.
  'snapshots lost': async (world) => {
    const victim = someone(world);
    if (!victim) return;
    await victim.kill();
    await rm(snapshotsOf(world.lab), { recursive: true, force: true, maxRetries: 5 });
    await world.lab.start();
  },
  'snapshots damaged': async (world) => {
    const victim = someone(world);
    if (!victim) return;
    await victim.kill();
    for (let partition = 0; partition < NUM_PARTITIONS; partition++)
      // One that its owner removes just now is lost instead.
      for (const folder of await snapshotFolders(world.lab, partition))
        await damage(folder).catch((error: NodeJS.ErrnoException) => {
          if (error.code !== 'ENOENT') throw error;
        });
    await world.lab.start();
  },
} satisfies Record<string, Fault>;

export type FaultName = keyof typeof FAULTS;

export const happen = (name: FaultName, world: World): Promise<void> => FAULTS[name](world);
