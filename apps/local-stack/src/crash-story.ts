/** The lines of a service's log that tell why it ended; pure. */

const PINO_WARN = 40;

/** Messages of the structured log from warnings on, and plain lines that are no stack frames; the last `lines` of them. */
export function crashStory(log: string, lines = 6): string[] {
  return log
    .split('\n')
    .map(tellingPart)
    .filter((line) => line !== null)
    .slice(-lines);
}

function tellingPart(line: string): string | null {
  if (line.trim() === '' || /^\s+at /.test(line) || /^Node\.js v/.test(line)) return null;
  if (!line.startsWith('{"level":')) return line;
  try {
    const entry = JSON.parse(line) as { level: number; msg?: string; err?: { message?: string } };
    if (entry.level < PINO_WARN) return null;
    const cause = entry.err?.message;
    return cause && cause !== entry.msg ? `${entry.msg}: ${cause}` : (entry.msg ?? line);
  } catch {
    return line;
  }
}
