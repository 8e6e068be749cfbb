/** Composition root of `npm start` and `npm run reset`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { checkFiles } from './check-files.ts';
import { FlagError, HELP, parseStartFlags, type StartFlags } from './flags.ts';
import { type RunReport, STAYS_DOWN } from './report.ts';
import { reset } from './reset.ts';
import { runPipeline } from './run.ts';
import { Terminal } from './terminal.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const [command = 'start', ...argv] = process.argv.slice(2);
const { askedMs, installed } = takeStartFacts();

async function main(): Promise<number> {
  const flags = parseStartFlags(argv, process.env.INIT_CWD ?? process.cwd());
  if (flags === 'help') {
    console.log(HELP);
    return 0;
  }
  if (command === 'reset') {
    await reset(flags.state, (line) => console.log(line));
    return 0;
  }
  if (command !== 'start') throw new FlagError(`Expected "start" or "reset", got ${command}`);
  checkFiles(flags);
  const terminal = new Terminal(process.stdout);
  const report = await runPipeline({
    flags,
    terminal,
    stop: stopSignal(terminal),
    askedMs,
    installed,
    nowMs: () => Date.now(),
  });
  finish(flags, report, terminal);
  const wasAskedToStop = flags.forSeconds === null && !report.bars.some((bar) => bar.name === STAYS_DOWN);
  return wasAskedToStop || report.ok ? 0 : EXIT_FAILED;
}

/** What scripts/bootstrap.mjs tells of this start. It is taken out of the environment, since it is true of no other process. */
function takeStartFacts(): { askedMs: number; installed: boolean } {
  const { ONEMALL_ASKED_MS: asked, ONEMALL_INSTALLED: installed } = process.env;
  delete process.env.ONEMALL_ASKED_MS;
  delete process.env.ONEMALL_INSTALLED;
  return { askedMs: Number(asked) || Date.now() - process.uptime() * 1000, installed: installed === '1' };
}

/** Aborted by Ctrl-C, SIGTERM, or the end of the process that started this one. A second signal ends everything at once. */
function stopSignal(terminal: Terminal): AbortSignal {
  const stop = new AbortController();
  const onSignal = (): void => {
    // The guardian sees this process end and stops the children.
    if (stop.signal.aborted) process.exit(130);
    terminal.say('Stopping in order; once more ends everything at once (nothing committed is lost)');
    stop.abort();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  process.on('SIGHUP', onSignal);
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent && !stop.signal.aborted) stop.abort();
  }, 1_000).unref();
  return stop.signal;
}

function finish(flags: StartFlags, report: RunReport, terminal: Terminal): void {
  if (flags.report) {
    const file = flags.report;
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
    terminal.say(`Report: ${file}`);
  }
  for (const note of report.notes) terminal.say(note);
  if (flags.forSeconds === null) return;
  for (const bar of report.bars)
    terminal.say(`${bar.ok ? ' ok ' : 'FAIL'} ${bar.name}: ${bar.value} (bar: ${bar.bar})`);
}

try {
  process.exit(await main());
} catch (error) {
  const expected = error instanceof Error && error.name !== 'Error' && !(error instanceof TypeError);
  console.error(error instanceof Error && (expected || !error.stack) ? error.message : error);
  process.exit(error instanceof FlagError ? EXIT_USAGE : EXIT_FAILED);
}
