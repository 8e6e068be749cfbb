/** 32-bit hash of `bytes[start, start + length)`, for tables that compare the bytes themselves on a match. */
export function hashBytes(bytes: Uint8Array, start: number, length: number): number {
  let hash = 0x811c9dc5 ^ length;
  const end = start + length;
  for (let at = start; at < end; at++) {
    hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x2c1b3c6d);
  return hash ^ (hash >>> 13);
}

export function equalBytes(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, length: number): boolean {
  // From the end: ids that differ mostly do so in their last characters.
  for (let i = length - 1; i >= 0; i--) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}

/** Negative, 0 or positive, by unsigned bytes: the order of UTF-8 text by code points. */
export function compareBytes(
  a: Uint8Array,
  aAt: number,
  aLength: number,
  b: Uint8Array,
  bAt: number,
  bLength: number,
): number {
  const common = Math.min(aLength, bLength);
  for (let i = 0; i < common; i++) {
    const difference = a[aAt + i]! - b[bAt + i]!;
    if (difference !== 0) return difference;
  }
  return aLength - bLength;
}

/** A call into native code costs more than it saves for what is short. */
const COPY_BY_LOOP = 20;
/** Takes any bytes, and unlike `set` no view of them. */
const { copy } = Buffer.prototype;

export function copyBytes(
  from: Uint8Array,
  fromAt: number,
  length: number,
  to: Uint8Array,
  toAt: number,
): void {
  if (length > COPY_BY_LOOP) copy.call(from, to, toAt, fromAt, fromAt + length);
  else for (let i = 0; i < length; i++) to[toAt + i] = from[fromAt + i]!;
}
