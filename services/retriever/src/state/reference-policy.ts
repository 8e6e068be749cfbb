import { isDeepStrictEqual } from 'node:util';
import type { PolicyVersion } from '@onemall/contracts';
import { HotSwap, type Lease } from '@onemall/service-kit';

/** What says how old a policy is, and to which codebooks it belongs. */
export interface Published {
  publication: Pick<PolicyVersion, 'step' | 'codebookVersions'>;
}

/**
 * The reference policy of RL: the newest policy at the last sync, which stands still until one that is `syncSteps` training
 * steps ahead is published, so that the rollouts of one period come from one policy (OneMall, section 3.3). One of other
 * codebooks is taken over at once, for groups of its predecessor train nobody, and so is one of an earlier step: the trainer
 * went back, and drops groups of a policy that it has not made.
 */
export class ReferencePolicy<M extends Published> {
  readonly #acquireNewest: () => Lease<M> | undefined;
  readonly #syncSteps: number;
  /** The reference holds a lease of the newest policy of its time; users hold leases of the reference. */
  readonly #held = new HotSwap<Lease<M>>(
    async (lease) => lease.release(),
    (error) => {
      throw error;
    },
  );

  constructor(options: { acquireNewest: () => Lease<M> | undefined; syncSteps: number }) {
    this.#acquireNewest = options.acquireNewest;
    this.#syncSteps = options.syncSteps;
  }

  /** The reference as of the newest policy; undefined before the first. */
  acquire(): Lease<M> | undefined {
    const newest = this.#acquireNewest();
    if (newest && this.#givesWayTo(newest.model)) this.#held.swap(newest);
    else newest?.release();
    const outer = this.#held.acquire();
    return outer && { model: outer.model.model, release: () => outer.release() };
  }

  #givesWayTo({ publication: newest }: M): boolean {
    const held = this.#held.current?.model.publication;
    if (!held) return true;
    const aheadSteps = newest.step - held.step;
    return (
      aheadSteps >= this.#syncSteps ||
      aheadSteps < 0 ||
      !isDeepStrictEqual(newest.codebookVersions, held.codebookVersions)
    );
  }

  close(): Promise<void> {
    return this.#held.close();
  }
}
