/**
 * Which partition a key belongs to: murmur2 as in the Java client's default partitioner, so that records of any
 * producer with that partitioner land beside ours.
 * https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/common/utils/Utils.java
 */
const SEED = 0x9747b28c;
const MULTIPLIER = 0x5bd1e995;

/** 32-bit murmur2, signed as in Java. */
export function murmur2(data: Uint8Array): number {
  const { length } = data;
  let hash = SEED ^ length;
  const whole = length & ~3;
  for (let at = 0; at < whole; at += 4) {
    let word = data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
    word = Math.imul(word, MULTIPLIER);
    word = Math.imul(word ^ (word >>> 24), MULTIPLIER);
    hash = Math.imul(hash, MULTIPLIER) ^ word;
  }
  const rest = length - whole;
  if (rest > 0) {
    if (rest === 3) hash ^= data[whole + 2]! << 16;
    if (rest >= 2) hash ^= data[whole + 1]! << 8;
    hash = Math.imul(hash ^ data[whole]!, MULTIPLIER);
  }
  hash = Math.imul(hash ^ (hash >>> 13), MULTIPLIER);
  return hash ^ (hash >>> 15);
}

export const partitionOf = (key: Uint8Array, numPartitions: number): number =>
  (murmur2(key) & 0x7fffffff) % numPartitions;
