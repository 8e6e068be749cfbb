/**
 * Lets a few tasks run, a bounded number wait in order, and refuses the rest at once. Background tasks are never refused and
 * give way: while others wait, one of them starts after every eighth.
 */
export class OverloadedError extends Error {
  override name = 'OverloadedError';
}

const FOREGROUND_TURNS = 8;

export class AdmissionGate {
  readonly #concurrency: number;
  readonly #queueLength: number;
  #running = 0;
  /** Turns given to others since a background task last had one. */
  #turns = 0;
  readonly #waiting: { enter: () => void }[] = [];
  readonly #background: { enter: () => void }[] = [];

  constructor(options: { concurrency: number; queueLength: number }) {
    this.#concurrency = options.concurrency;
    this.#queueLength = options.queueLength;
  }

  get running(): number {
    return this.#running;
  }
  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Runs the task when its turn comes.
   * @throws OverloadedError at once when the queue is full, and when the signal fires before the turn comes
   */
  async run<T>(task: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.#running < this.#concurrency) this.#running++;
    else await this.#turn(signal);
    return this.#finish(task);
  }

  /** Runs the task when a place is free and its turn has come. */
  async runInBackground<T>(task: () => Promise<T>): Promise<T> {
    if (this.#running < this.#concurrency) this.#running++;
    else await new Promise<void>((enter) => this.#background.push({ enter }));
    return this.#finish(task);
  }

  async #finish<T>(task: () => Promise<T>): Promise<T> {
    try {
      return await task();
    } finally {
      // the place passes to the next in line without ever being free
      const background = this.#waiting.length === 0 || this.#turns >= FOREGROUND_TURNS;
      const next = (background && this.#background.shift()) || this.#waiting.shift();
      this.#turns = background ? 0 : this.#turns + 1;
      if (next) next.enter();
      else this.#running--;
    }
  }

  #turn(signal: AbortSignal): Promise<void> {
    if (this.#waiting.length >= this.#queueLength)
      throw new OverloadedError(
        `${this.#running} searches run and ${this.#waiting.length} wait, which is the limit`,
      );
    return new Promise((resolve, reject) => {
      const place = {
        enter: () => {
          signal.removeEventListener('abort', leave);
          resolve();
        },
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(place), 1);
        reject(new OverloadedError('the request waited until its time was over'));
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(place);
    });
  }
}
