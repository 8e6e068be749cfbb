/**
 * Frees the memory of an array at once. Else it would stay until the next full collection, which comes late where the heap
 * itself is small: tables of all partitions grow at about the same time, and of each the old one would lie beside the new.
 * Nobody may look at the array any more; it is empty from now on.
 */
export function letGo(array: ArrayBufferView): void {
  if (array.buffer instanceof ArrayBuffer) array.buffer.transfer(0);
}
