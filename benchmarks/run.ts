/**
 * `npm run bench -- NAME [--json FILE]`: runs benchmarks/NAME.ts, prints its table and writes its result. Without a name
 * it lists what there is. Exits 1 when a bar is missed, 3 when nothing could be measured here.
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { printResult } from './report/print.ts';
import { type Benchmark, type BenchmarkResult, exitCodeOf } from './report/result.ts';

const names = readdirSync(new URL('./', import.meta.url))
  .filter((f) => f.endsWith('.ts') && f !== 'run.ts')
  .map((f) => f.slice(0, -'.ts'.length))
  .sort();
const { values, positionals } = parseArgs({ allowPositionals: true, options: { json: { type: 'string' } } });
const [name] = positionals;
if (name === undefined) {
  console.log(`npm run bench -- NAME [--json FILE], where NAME is one of:\n  ${names.join('\n  ')}`);
  process.exit(0);
}
if (!names.includes(name)) {
  console.error(`No benchmark ${name}: there are ${names.join(', ')}`);
  process.exit(2);
}
const module = (await import(`./${name}.ts`)) as { default: Benchmark };
const result: BenchmarkResult = await module.default((line) => console.log(line));
printResult(result);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
process.exit(exitCodeOf(result));
