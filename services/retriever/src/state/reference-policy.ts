import { HotSwap, type Lease } from '@onemall/service-kit';

/**
 * The reference policy of RL: the newest policy at the last sync, which stands still for `syncMs`, so that the rollouts of
 * one period come from one policy (OneMall, section 3.3).
 */
export class ReferencePolicy<M> {
  readonly #acquireNewest: () => Lease<M> | undefined;
  readonly #syncMs: number;
  /** The reference holds a lease of the newest policy of its time; users hold leases of the reference. */
  readonly #held = new HotSwap<Lease<M>>(
    async (lease) => lease.release(),
    (error) => {
      throw error;
    },
  );
  #syncedMs = Number.NEGATIVE_INFINITY;

  constructor(options: { acquireNewest: () => Lease<M> | undefined; syncMs: number }) {
    this.#acquireNewest = options.acquireNewest;
    this.#syncMs = options.syncMs;
  }

  /** The reference at this moment; undefined before the first policy. */
  acquire(nowMs: number): Lease<M> | undefined {
    if (!this.#held.current || nowMs - this.#syncedMs >= this.#syncMs) {
      const newest = this.#acquireNewest();
      if (newest) {
        this.#held.swap(newest);
        this.#syncedMs = nowMs;
      }
    }
    const outer = this.#held.acquire();
    return outer && { model: outer.model.model, release: () => outer.release() };
  }

  close(): Promise<void> {
    return this.#held.close();
  }
}
