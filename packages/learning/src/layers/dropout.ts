import type { Ops } from '../ops.ts';

/** Sets some elements to zero while training and does nothing else where. */
export type Dropout<T> = (x: T) => T;

export const keepAll = <T>(x: T): T => x;

/** Feeds whose name begins so are masks of dropout; `DropoutMasks` fills them. */
export const DROPOUT_INPUT = 'dropout.';

/**
 * Dropout (Srivastava et al. 2014) whose masks, 0 or 1 / (1 - rate), are inputs of the step: the graph stays a pure function
 * of its inputs, so that a step can be repeated bit for bit.
 */
export function dropout<T>(ops: Ops<T>, rate: number): Dropout<T> {
  if (!(rate >= 0 && rate < 1)) throw new Error(`A dropout rate must be in [0, 1), got ${rate}`);
  if (rate === 0) return keepAll;
  let sites = 0;
  return (x) => ops.mul(x, ops.input(`${DROPOUT_INPUT}${sites++}`, ops.shape(x), 'float32'));
}

/** Makes the masks: pieces of one bank of random zeros at random places, which costs a copy and not a draw per element. */
export class DropoutMasks {
  readonly #bank: Float32Array;

  /** @param most elements of the largest mask @param uniform numbers in [0, 1) */
  constructor(rate: number, most: number, uniform: () => number) {
    this.#bank = new Float32Array(Math.max(1 << 20, 2 * most));
    for (let i = 0; i < this.#bank.length; i++) this.#bank[i] = uniform() < rate ? 0 : 1 / (1 - rate);
  }

  /** A copy of `size` elements. */
  draw(size: number, uniform: () => number): Float32Array {
    const begin = Math.floor(uniform() * (this.#bank.length - size + 1));
    return this.#bank.slice(begin, begin + size);
  }
}
