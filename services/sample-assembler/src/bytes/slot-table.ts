/**
 * Open addressing from a hash to slot numbers. It holds hash and slot alone: the caller compares the full id, which
 * lies with the slot.
 *
 *     for (let i = table.first(hash); (slot = table.slots[i]!) >= 0; i = table.next(i))
 *       if (table.hashes[i] === hash && isTheSame(slot)) return slot;
 */
import { letGo } from './let-go.ts';

const EMPTY = -1;

export class SlotTable {
  slots: Int32Array;
  hashes: Int32Array;
  #mask: number;
  #size = 0;

  constructor(capacity = 64) {
    this.slots = new Int32Array(capacity).fill(EMPTY);
    this.hashes = new Int32Array(capacity);
    this.#mask = capacity - 1;
  }

  get size(): number {
    return this.#size;
  }
  get sizeBytes(): number {
    return this.slots.byteLength * 2;
  }
  first(hash: number): number {
    return hash & this.#mask;
  }
  next(at: number): number {
    return (at + 1) & this.#mask;
  }

  add(hash: number, slot: number): void {
    if ((this.#size + 1) * 4 > this.slots.length * 3) this.#grow();
    let at = hash & this.#mask;
    while (this.slots[at]! >= 0) at = (at + 1) & this.#mask;
    this.slots[at] = slot;
    this.hashes[at] = hash;
    this.#size++;
  }

  /** Shifts back what came after, so that look-ups need no marks of what was removed. */
  remove(hash: number, slot: number): void {
    const { slots, hashes } = this;
    const mask = this.#mask;
    let hole = hash & mask;
    while (slots[hole] !== slot) hole = (hole + 1) & mask;
    for (let at = (hole + 1) & mask; slots[at]! >= 0; at = (at + 1) & mask) {
      const home = hashes[at]! & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      slots[hole] = slots[at]!;
      hashes[hole] = hashes[at]!;
      hole = at;
    }
    slots[hole] = EMPTY;
    this.#size--;
  }

  /** Adds every used slot under the hash that its column has. */
  addAll(slots: { size: number; end: number; isUsed(slot: number): boolean }, hashes: Int32Array): void {
    while ((this.#size + slots.size) * 4 > this.slots.length * 3) this.#grow();
    for (let slot = 0; slot < slots.end; slot++) if (slots.isUsed(slot)) this.add(hashes[slot]!, slot);
  }

  #grow(): void {
    const { slots, hashes } = this;
    this.slots = new Int32Array(slots.length * 2).fill(EMPTY);
    this.hashes = new Int32Array(slots.length * 2);
    this.#mask = slots.length * 2 - 1;
    this.#size = 0;
    for (let at = 0; at < slots.length; at++) if (slots[at]! >= 0) this.add(hashes[at]!, slots[at]!);
    letGo(slots);
    letGo(hashes);
  }
}
