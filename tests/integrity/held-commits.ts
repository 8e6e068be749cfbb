/** Every partition of the join stands before the end of a transaction: the place where a broker alone may end safely. */
import { waitFor } from '@onemall/testkit';
import { type Lab, NUM_PARTITIONS } from './lab.ts';

export interface HeldCommits {
  /** Each partition has come to its EndTxn, which has not left. Only what is to be committed brings it there. */
  readonly held: Promise<void>;
  release(): void;
}

/** Waits until every partition has been taken over by one instance. @returns how many each has, in the lab's order */
export async function allOwned(lab: Lab, timeoutMs = 90_000): Promise<number[]> {
  let owned: number[] = [];
  await waitFor(
    async () => {
      const all = await Promise.all(lab.instances.map((i) => i.status().catch(() => null)));
      owned = all.map((status) => status?.values.partitions_owned ?? 0);
      const isDone = all.every((status) => status?.values.partitions_taking_over === 0);
      return isDone && owned.reduce((a, b) => a + b, 0) === NUM_PARTITIONS;
    },
    { what: 'every partition to have one owner', timeoutMs },
  ).catch((error: Error) => {
    throw new Error(`${error.message}; owned ${owned}\n${lab.stories(40)}`);
  });
  return owned;
}

/**
 * Holds the next EndTxn of each partition. A partition gets there only when its transaction before is over with all its
 * markers, so once all are held none is being ended: a broker whose partitions lose their leader just then, as they do
 * when it is alone and ends, forgets those markers (KAFKA-20734).
 */
export async function holdCommits(lab: Lab, timeoutMs?: number): Promise<HeldCommits> {
  const owned = await allOwned(lab, timeoutMs);
  const holds = lab.instances.flatMap(({ proxy }, at) =>
    Array.from({ length: owned[at]! }, () => proxy.hold('EndTxn', 'request')),
  );
  const held = Promise.all(holds.map((hold) => hold.held)).then(() => {});
  held.catch(() => {}); // whoever waits for it gets the error
  return {
    held,
    release: () => {
      for (const hold of holds) hold.release();
    },
  };
}
