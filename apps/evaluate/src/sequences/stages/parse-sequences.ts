/**
 * A set of user sequences in the format of amazon-beauty: one line per user, the user's id and then the ids of the items in
 * order; items are numbered from 1. Times, texts and embeddings of the items may lie beside it.
 */

export interface SequenceSet {
  name: string;
  users: string[];
  /** Items of each user, oldest first. */
  sequences: Int32Array[];
  /** Items are 1 to numItems. */
  numItems: number;
  numInteractions: number;
  /** Unix seconds, as the sequences lie. */
  times?: Float64Array[];
  /** Of item i + 1; empty where unknown. */
  texts?: string[];
  /** float32 [numItems, dim], row i is item i + 1. */
  embeddings?: { data: Float32Array; dim: number };
}

/** What the files hold cannot be used; the message names file and line. */
export class DataError extends Error {
  override name = 'DataError';
}

/** Ids may leave gaps (items that lost their interactions), but a table row is made for each up to the greatest. */
const MAX_ROWS_PER_ITEM = 4;
const NUMBER = /^\d+$/;

export interface ParsedSequences {
  users: string[];
  sequences: Int32Array[];
  numItems: number;
  numInteractions: number;
}

/** @param file for messages @throws DataError */
export function parseSequences(text: string, file: string): ParsedSequences {
  const users: string[] = [];
  const sequences: Int32Array[] = [];
  const seen = new Map<string, number>();
  const items = new Set<number>();
  let most = { item: 0, line: 0 };
  let numInteractions = 0;
  for (const [line, fields] of lines(text)) {
    const at = `${file}, line ${line}`;
    const [user, ...ids] = fields as [string, ...string[]];
    const earlier = seen.get(user);
    if (earlier !== undefined)
      throw new DataError(`${at}: user ${user} was on line ${earlier} already; a user has one line`);
    seen.set(user, line);
    if (ids.length === 0)
      throw new DataError(
        `${at}: expected a user id and then item ids, separated by spaces, got only "${user}"`,
      );
    const sequence = Int32Array.from(ids, (id, i) => {
      const item = NUMBER.test(id) ? Number(id) : Number.NaN;
      if (!(item >= 1 && item <= 2 ** 31 - 2))
        throw new DataError(
          `${at}, field ${i + 2}: an item id must be a whole number of at least 1, got "${id}"`,
        );
      if (item > most.item) most = { item, line };
      items.add(item);
      return item;
    });
    users.push(user);
    sequences.push(sequence);
    numInteractions += sequence.length;
  }
  if (users.length === 0) throw new DataError(`${file}: expected one user per line, got an empty file`);
  if (most.item > MAX_ROWS_PER_ITEM * items.size + 1000)
    throw new DataError(
      `${file}, line ${most.line}: item id ${most.item} with only ${items.size} different items; number the items from 1 without large gaps`,
    );
  return { users, sequences, numItems: most.item, numInteractions };
}

/** Times of the same rows in the same order. @throws DataError where they do not fit the sequences */
export function parseTimes(
  text: string,
  file: string,
  { users, sequences }: Pick<ParsedSequences, 'users' | 'sequences'>,
): Float64Array[] {
  const times: Float64Array[] = [];
  for (const [line, fields] of lines(text)) {
    const at = `${file}, line ${line}`;
    const [user, ...values] = fields as [string, ...string[]];
    const row = times.length;
    if (user !== users[row])
      throw new DataError(
        `${at}: expected the times of user ${users[row] ?? '(none left)'}, as in the sequences, got user ${user}`,
      );
    if (values.length !== sequences[row]!.length)
      throw new DataError(
        `${at}: user ${user} has ${sequences[row]!.length} items but ${values.length} times`,
      );
    times.push(
      Float64Array.from(values, (value, i) => {
        const time = Number(value);
        if (!(Number.isFinite(time) && time >= 0))
          throw new DataError(
            `${at}, field ${i + 2}: a time must be a number of seconds of at least 0, got "${value}"`,
          );
        return time;
      }),
    );
  }
  if (times.length !== users.length)
    throw new DataError(`${file}: expected times of ${users.length} users, got ${times.length}`);
  return times;
}

/**
 * Texts: a JSON object from item id to { title?, attributes? } or to a string.
 * @returns one per item, empty where the file has none
 * @throws DataError
 */
export function parseTexts(text: string, file: string, numItems: number): string[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new DataError(`${file} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw new DataError(`${file}: expected an object from item id to its text, got ${kindOf(parsed)}`);
  const texts = new Array<string>(numItems).fill('');
  for (const [id, value] of Object.entries(parsed)) {
    const item = Number(id);
    if (!(Number.isInteger(item) && item >= 1))
      throw new DataError(`${file}, key "${id}": an item id must be a whole number of at least 1`);
    if (item <= numItems) texts[item - 1] = textOf(value, `${file}, item ${id}`);
  }
  return texts;
}

/** @throws DataError when the bytes are no float32 row per item, or hold NaN or an infinity */
export function parseEmbeddings(
  bytes: Uint8Array,
  file: string,
  numItems: number,
): { data: Float32Array; dim: number } {
  const dim = bytes.byteLength / 4 / numItems;
  if (!(Number.isInteger(dim) && dim >= 1))
    throw new DataError(
      `${file}: expected float32 rows for ${numItems} items, but ${bytes.byteLength} bytes are no multiple of ${4 * numItems}`,
    );
  // A copy of these bytes alone: `slice` of a Buffer is a view into memory it shares with others.
  const data = new Float32Array(new Uint8Array(bytes).buffer);
  const bad = data.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0)
    throw new DataError(
      `${file}, row ${Math.floor(bad / dim) + 1}: number ${(bad % dim) + 1} is ${data[bad]}; embeddings must be finite`,
    );
  return { data, dim };
}

function textOf(value: unknown, at: string): string {
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null)
    throw new DataError(`${at}: expected a string or { title, attributes }, got ${kindOf(value)}`);
  const { title = '', attributes = [] } = value as { title?: unknown; attributes?: unknown };
  if (typeof title !== 'string') throw new DataError(`${at}: title must be a string, got ${kindOf(title)}`);
  if (!(Array.isArray(attributes) && attributes.every((a) => typeof a === 'string')))
    throw new DataError(`${at}: attributes must be a list of strings`);
  return [title, ...attributes.filter((a) => a !== 'Unknown')].filter((part) => part !== '').join(', ');
}

const kindOf = (value: unknown): string =>
  value === null ? 'null' : Array.isArray(value) ? 'a list' : `a ${typeof value}`;

/** Lines that are not blank, counted from 1, as fields. */
function* lines(text: string): Generator<readonly [number, string[]]> {
  let line = 0;
  for (const raw of text.split('\n')) {
    line++;
    const trimmed = raw.trim();
    if (trimmed !== '') yield [line, trimmed.split(/\s+/)];
  }
}
