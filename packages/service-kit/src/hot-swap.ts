/** Something that is replaced while it is in use: users hold leases, and the old one closes when its last lease ends. */
export interface Lease<M> {
  readonly model: M;
  /** Called once. */
  release(): void;
}

export class HotSwap<M> {
  readonly #close: (model: M) => Promise<void>;
  readonly #onCloseError: (error: unknown) => void;
  #current: Slot<M> | undefined;
  readonly #closing = new Set<Promise<void>>();

  /** @param onCloseError told when an old one does not close cleanly; the new one serves regardless */
  constructor(close: (model: M) => Promise<void>, onCloseError: (error: unknown) => void) {
    this.#close = close;
    this.#onCloseError = onCloseError;
  }

  get current(): M | undefined {
    return this.#current?.model;
  }

  /** The current one, kept open until released; undefined before the first. */
  acquire(): Lease<M> | undefined {
    const slot = this.#current;
    return slot && this.#lease(slot);
  }

  /** New leases get `next` from now on; the old one closes when its leases have ended. */
  swap(next: M): void {
    const old = this.#current;
    this.#current = { model: next, uses: 1 };
    if (old) this.#release(old);
  }

  /** Takes the current one away and waits until all have closed. */
  async close(): Promise<void> {
    const old = this.#current;
    this.#current = undefined;
    if (old) this.#release(old);
    while (this.#closing.size > 0) await Promise.all(this.#closing);
  }

  #lease(slot: Slot<M>): Lease<M> {
    slot.uses++;
    let released = false;
    return {
      model: slot.model,
      release: () => {
        if (released) throw new Error('A lease was released twice');
        released = true;
        this.#release(slot);
      },
    };
  }

  #release(slot: Slot<M>): void {
    if (--slot.uses > 0) return;
    const closed = this.#close(slot.model)
      .catch(this.#onCloseError)
      .finally(() => this.#closing.delete(closed));
    this.#closing.add(closed);
  }
}

interface Slot<M> {
  readonly model: M;
  /** Leases, and one for being current. */
  uses: number;
}
