/** Evaluation on user sequences: reads a set, trains what has no result yet, prints and plots the tables. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { curvesSvg } from '../curves.ts';
import { readFolder } from './adapters/read-folder.ts';
import { terminalReport } from './adapters/terminal.ts';
import { type Command, parseCommand, USAGE, UsageError } from './command-line.ts';
import { ABLATION_ROWS, type GeneratorRecipe, MAIN_ROWS } from './models/recipes.ts';
import { judge, popularityRanks } from './rank-lists.ts';
import { markdown, tableOf } from './report.ts';
import { type Question, questions, trainingSequences, validationQuestions } from './stages/leave-one-out.ts';
import { DataError, type SequenceSet } from './stages/parse-sequences.ts';
import { type RunResult, SettingsError, Study } from './study.ts';
import { NONE } from './train-run.ts';

async function evaluate(command: Command): Promise<void> {
  const set = readFolder(command.data);
  const out = path.join(command.out, set.name);
  mkdirSync(out, { recursive: true });
  const asked = questions(set.sequences, 'test');
  console.log(
    `${set.name}: ${set.users.length} users, ${set.numItems} items, ${set.numInteractions} interactions; ${asked.length} users are asked for their last item; results in ${out}`,
  );
  if (asked.length === 0)
    throw new DataError(`${command.data}: no user has three items, so that nothing can be held back`);
  const report = terminalReport();
  const study = new Study(set, out, report, { engine: command.engine });
  const results: RunResult[] = [];
  // Seed by seed, so that a stop leaves whole comparisons.
  const rows = command.rows.filter((row) => command.rowsNamed || serves(set, row));
  for (const seed of command.seeds)
    for (const row of rows) {
      results.push(
        row === 'sasrec' ? await study.sasrec(seed) : await study.generator(row, recipeOf(row)!, seed),
      );
      publish(set, out, [popularity(set), ...results]);
    }
  report('', true);
  console.log(`\n${markdown(tableOf([popularity(set), ...results]))}\nTables and curves: ${out}`);
}

/** Whether the set has what a row's tokens are made of. */
export function serves(set: SequenceSet, row: string): boolean {
  const isServed = recipeOf(row)?.tokenSource !== 'text' || Boolean(set.texts ?? set.embeddings);
  if (!isServed) console.log(`${row} is left out: the folder has neither item texts nor embeddings`);
  return isServed;
}

const recipeOf = (row: string): GeneratorRecipe | undefined => MAIN_ROWS[row] ?? ABLATION_ROWS[row];

function publish(set: SequenceSet, out: string, results: readonly RunResult[]): void {
  writeFileSync(path.join(out, 'results.md'), markdown(tableOf(results)));
  writeFileSync(path.join(out, 'results.json'), `${JSON.stringify(tableOf(results), null, 2)}\n`);
  const curves = (value: (epoch: RunResult['progress']['epochs'][number]) => number | undefined) =>
    results.map((result) => ({
      name: result.row,
      points: result.progress.epochs.flatMap((epoch) => {
        const y = value(epoch);
        return y === undefined ? [] : [[epoch.epoch, y] as const];
      }),
    }));
  const draw = (file: string, title: string, y: string, value: Parameters<typeof curves>[0]): void =>
    writeFileSync(path.join(out, file), curvesSvg(`${set.name}: ${title}`, { x: 'epoch', y }, curves(value)));
  draw('loss.svg', 'training loss', 'loss, nats', (epoch) => epoch.losses.loss);
  draw('validation.svg', 'validation, earlier items out', 'R@10', (epoch) => epoch.validation?.['R@10']);
}

function popularity(set: SequenceSet): RunResult {
  const training = trainingSequences(set.sequences);
  const judged = (asked: readonly Question[]) => judge(popularityRanks(set, training, asked));
  return {
    row: 'popularity',
    seed: 0,
    parameters: 0,
    progress: { epochs: [], best: NONE, done: true },
    trainCpuSeconds: 0,
    lists: {
      popularity: {
        validation: judged(validationQuestions(set.sequences)),
        test: judged(questions(set.sequences, 'test')),
      },
    },
  };
}

/** @param args after `npm run evaluate --` */
export async function main(args: readonly string[]): Promise<void> {
  try {
    await evaluate(parseCommand(args));
  } catch (error) {
    if (error instanceof UsageError) console.error(`${error.message}\n\n${USAGE}`);
    else if (error instanceof DataError || error instanceof SettingsError) console.error(error.message);
    else throw error;
    process.exitCode = 2;
  }
}
