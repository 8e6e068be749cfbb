/**
 * Many short lists of 32-bit numbers in one typed array, outside the garbage collector's sight: lists as arrays that grow
 * and live for minutes would be most of its old garbage. A list is the place of its newest piece, and grows at that end.
 */
import { letGo } from './let-go.ts';

const PIECE_BITS = 4;
/** The first number of a piece says how many others it has, and where the piece before it is. */
const PIECE_NUMBERS = (1 << PIECE_BITS) - 1;
export const NO_NUMBERS = -1;
const FIRST_PIECES = 16;

export class NumberLists {
  #numbers = new Int32Array(FIRST_PIECES << PIECE_BITS);
  /** Pieces from here on were never used. */
  #end = 0;
  #free = NO_NUMBERS;

  get sizeBytes(): number {
    return this.#numbers.byteLength;
  }

  /** @param list or NO_NUMBERS @returns the list, which may have moved */
  add(list: number, value: number): number {
    let piece = list;
    let count = list === NO_NUMBERS ? PIECE_NUMBERS : this.#count(list);
    if (count === PIECE_NUMBERS) {
      piece = this.#newPiece(list);
      count = 0;
    }
    const at = piece << PIECE_BITS;
    this.#numbers[at + 1 + count] = value;
    this.#numbers[at]!++;
    return piece;
  }

  /** Tells each number, in the order in which they were added, and gives the list's memory back. */
  take(list: number, tell: (value: number) => void): void {
    const pieces: number[] = [];
    for (let piece = list; piece !== NO_NUMBERS; piece = this.#before(piece)) pieces.push(piece);
    for (let i = pieces.length - 1; i >= 0; i--) {
      const piece = pieces[i]!;
      const count = this.#count(piece);
      for (let n = 1; n <= count; n++) tell(this.#numbers[(piece << PIECE_BITS) + n]!);
      this.#setHead(piece, this.#free);
      this.#free = piece;
    }
  }

  #newPiece(before: number): number {
    let piece = this.#free;
    if (piece === NO_NUMBERS) {
      if (this.#end << PIECE_BITS === this.#numbers.length) this.#grow();
      piece = this.#end++;
    } else this.#free = this.#before(piece);
    this.#setHead(piece, before);
    return piece;
  }

  #grow(): void {
    const larger = new Int32Array(Math.ceil((this.#end * 5) / 4) << PIECE_BITS);
    larger.set(this.#numbers);
    letGo(this.#numbers);
    this.#numbers = larger;
  }

  #count(piece: number): number {
    return this.#numbers[piece << PIECE_BITS]! & PIECE_NUMBERS;
  }
  #before(piece: number): number {
    return this.#numbers[piece << PIECE_BITS]! >> PIECE_BITS;
  }
  #setHead(piece: number, before: number): void {
    this.#numbers[piece << PIECE_BITS] = before << PIECE_BITS;
  }
}
