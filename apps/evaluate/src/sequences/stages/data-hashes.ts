/** What tells the data of two runs apart where their counts agree. */
import { createHash } from 'node:crypto';
import type { SequenceSet } from './parse-sequences.ts';

const hashOf = (...parts: (string | Uint8Array)[]): string => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

export const hashOfValues = ({ buffer, byteOffset, byteLength }: Float32Array): string =>
  hashOf(new Uint8Array(buffer, byteOffset, byteLength));

/** sha256 by kind of data, of those that the set has; that of the sequences is of their file where its lines end in one newline each. */
export function dataHashes({ users, sequences, texts, embeddings }: SequenceSet): Record<string, string> {
  const lines = users.map((user, row) => `${user} ${sequences[row]!.join(' ')}\n`);
  return {
    sequences: hashOf(...lines),
    ...(texts && { texts: hashOf(JSON.stringify(texts)) }),
    ...(embeddings && { embeddings: hashOfValues(embeddings.data) }),
  };
}
