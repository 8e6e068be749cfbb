import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import {
  DataError,
  parseEmbeddings,
  parseSequences,
  parseTexts,
  parseTimes,
  type SequenceSet,
} from '../stages/parse-sequences.ts';

const SEQUENCES = /^(.+)\.txt$/;
const TIMES = '_time.txt';
const TEXTS = '_item_text.json';
const EMBEDDINGS = /_embeddings\.f32$/;

/**
 * Reads NAME.txt, and where they are there NAME_time.txt, NAME_item_text.json and NAME*_embeddings.f32.
 * @throws DataError
 */
export function readFolder(folder: string): SequenceSet {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
    throw new DataError(`There is no folder ${folder}; --data names one with NAME.txt, one user per line`);
  const files = readdirSync(folder).sort();
  const found = files.filter((file) => SEQUENCES.test(file) && !file.endsWith(TIMES));
  if (found.length !== 1)
    throw new DataError(
      `${folder}: expected one file NAME.txt with user sequences (NAME${TIMES}, NAME${TEXTS} and NAME_embeddings.f32 may lie beside it), found ${found.length === 0 ? 'none' : found.join(', ')}`,
    );
  const file = found[0]!;
  const name = SEQUENCES.exec(file)![1]!;
  const at = (other: string): string => path.join(folder, other);
  const parsed = parseSequences(readFileSync(at(file), 'utf8'), at(file));
  const times = files.find((f) => f === `${name}${TIMES}`);
  const texts = files.find((f) => f === `${name}${TEXTS}`);
  const embeddings = files.filter((f) => f.startsWith(name) && EMBEDDINGS.test(f));
  if (embeddings.length > 1)
    throw new DataError(`${folder}: expected at most one file of embeddings, found ${embeddings.join(', ')}`);
  return {
    name: name.toLowerCase(),
    ...parsed,
    ...(times && { times: parseTimes(readFileSync(at(times), 'utf8'), at(times), parsed) }),
    ...(texts && { texts: parseTexts(readFileSync(at(texts), 'utf8'), at(texts), parsed.numItems) }),
    ...(embeddings[0] && {
      embeddings: parseEmbeddings(readFileSync(at(embeddings[0])), at(embeddings[0]), parsed.numItems),
    }),
  };
}
