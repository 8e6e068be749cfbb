import path from 'node:path';
import { parseArgs } from 'node:util';
import { ENGINES, type Engine, engineOf } from '../engine-option.ts';
import { ABLATION_ROWS, MAIN_ROWS } from './models/recipes.ts';

/** What was typed cannot be meant; the message says what can. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export interface Command {
  /** Folder of the sequences. */
  data: string;
  rows: string[];
  /** Whether the rows were named: then one that the data cannot serve is an error, otherwise it is left out. */
  rowsNamed: boolean;
  seeds: number[];
  /** Folder of the results; a subfolder per set is made in it. */
  out: string;
  engine: Engine;
}

/** Sets that have a name of their own, and their folder inside --data. */
const NAMED_SETS: Readonly<Record<string, string>> = { 'amazon-beauty': 'amazon-beauty' };
export const ROWS = ['sasrec', ...Object.keys(MAIN_ROWS), ...Object.keys(ABLATION_ROWS)];
const DEFAULT_ROWS = ['sasrec', ...Object.keys(MAIN_ROWS)];

export const USAGE = `npm run evaluate -- sequences --data FOLDER [options]
npm run evaluate -- ${Object.keys(NAMED_SETS).join(' | ')} --data FOLDER-OF-SETS [options]

  --models NAMES    rows to train, separated by commas; default ${DEFAULT_ROWS.join(',')}
  --ablations       the ablation rows as well: ${Object.keys(ABLATION_ROWS).join(', ')}
  --seeds NUMBERS   separated by commas; default 1,2,3
  --engine NAME     what trains: ${ENGINES.join(', ')}; default cpu, whose runs repeat bit for bit
  --out FOLDER      where results and checkpoints lie; default .data/evaluate

FOLDER holds NAME.txt: a user per line, the user's id and then item ids (from 1) in order. NAME_item_text.json,
NAME_time.txt and NAME_embeddings.f32 may lie beside it. The command takes up what a stop left.
Other kinds: npm run evaluate -- world | rl, see apps/evaluate/README.md.`;

/** @throws UsageError */
export function parseCommand(args: readonly string[]): Command {
  const { values, positionals } = parsed(args);
  const [set, ...rest] = positionals;
  if (set === undefined || rest.length > 0)
    throw new UsageError(`expected one of: sequences, ${Object.keys(NAMED_SETS).join(', ')}`);
  if (set !== 'sequences' && !Object.hasOwn(NAMED_SETS, set))
    throw new UsageError(
      `there is no set ${set}; expected one of: sequences, ${Object.keys(NAMED_SETS).join(', ')}`,
    );
  if (values.data === undefined) throw new UsageError('--data FOLDER is missing');
  const rows = values.models === undefined ? DEFAULT_ROWS : listOf(values.models, '--models');
  for (const row of rows)
    if (!ROWS.includes(row)) throw new UsageError(`there is no model ${row}; there are ${ROWS.join(', ')}`);
  const seeds = listOf(values.seeds ?? '1,2,3', '--seeds').map((text) => {
    const seed = Number(text);
    if (!/^\d+$/.test(text) || seed > 2 ** 31 - 1)
      throw new UsageError(`--seeds takes whole numbers from 0 to ${2 ** 31 - 1}, got "${text}"`);
    return seed;
  });
  return {
    data: path.resolve(values.data, NAMED_SETS[set] ?? ''),
    rows: [...new Set([...rows, ...(values.ablations ? Object.keys(ABLATION_ROWS) : [])])],
    rowsNamed: values.models !== undefined,
    seeds: [...new Set(seeds)],
    out: path.resolve(values.out ?? path.join('.data', 'evaluate')),
    engine: engineNamed(values.engine),
  };
}

function engineNamed(name: string): Engine {
  try {
    return engineOf(name, console.log);
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        data: { type: 'string' },
        models: { type: 'string' },
        seeds: { type: 'string' },
        out: { type: 'string' },
        engine: { type: 'string', default: 'cpu' },
        ablations: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

function listOf(text: string, option: string): string[] {
  const list = text.split(',').map((part) => part.trim());
  if (list.some((part) => part === '')) throw new UsageError(`${option} has an empty part: "${text}"`);
  return list;
}
