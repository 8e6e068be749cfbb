/**
 * Non-negative 31-bit hash of a categorical feature (FNV-1a over UTF-16 units with a final avalanche). The field name is
 * part of it, so that equal texts of different fields fall on different rows of a shared table.
 */
export function hashFeature(field: string, value: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < field.length; i++) h = Math.imul(h ^ field.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ 0xff, 0x01000193);
  for (let i = 0; i < value.length; i++) h = Math.imul(h ^ value.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) & 0x7fffffff;
}

/** Two buckets per doubling of the price. @param priceCents minor units, 0 or more */
export function priceBucket(priceCents: number): number {
  return Math.floor(2 * Math.log2(1 + priceCents));
}
