import type { Report } from '../train-run.ts';

const PASSING_MS = 250;
/** A log has no line to rewrite: it gets a passing line now and then. */
const PASSING_IN_LOG_MS = 30_000;

/** Lines that stay, and one that is rewritten while something goes on. */
export function terminalReport(out: NodeJS.WriteStream = process.stdout): Report {
  let lastMs = Number.NEGATIVE_INFINITY;
  return (line, passing = false) => {
    const nowMs = performance.now();
    if (passing && line !== '') {
      if (nowMs - lastMs < (out.isTTY ? PASSING_MS : PASSING_IN_LOG_MS)) return;
      lastMs = nowMs;
    }
    if (out.isTTY) out.write(`\r\x1b[2K${line}${passing ? '' : '\n'}`);
    else if (line !== '') out.write(`${line}\n`);
  };
}
