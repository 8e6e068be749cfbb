/** Where messages of this package and of kafkajs go: the caller's `onLog`, or stderr for warnings and errors. */
import { type logCreator, logLevel } from 'kafkajs';
import type { KafkaLogEntry } from './ports.ts';

const REPEAT_MS = 10_000;
/** Ordinary answers that kafkajs calls errors. */
const EXPECTED =
  /CONCURRENT_TRANSACTIONS|coordinator is not available|concurrent operation|rebalanc|MEMBER_ID_REQUIRED|needs to have a valid member id/i;

export class LogWriter {
  readonly #write: (entry: KafkaLogEntry) => void;
  readonly #nowMs: () => number;
  readonly #lastAt = new Map<string, number>();

  constructor(onLog: ((entry: KafkaLogEntry) => void) | undefined, nowMs: () => number) {
    this.#write =
      onLog ??
      ((entry) => {
        if (entry.level === 'warn' || entry.level === 'error')
          process.stderr.write(`kafka-io ${entry.level}: ${entry.message}\n`);
      });
    this.#nowMs = nowMs;
  }

  warn(message: string, details: Record<string, unknown> = {}): void {
    this.#once({ level: 'warn', message, details });
  }
  debug(message: string, details: Record<string, unknown> = {}): void {
    this.#write({ level: 'debug', message, details });
  }

  /** kafkajs' own messages; addresses and ids only, it never logs credentials or record bytes at this level. */
  readonly kafkajsLogCreator: logCreator =
    () =>
    ({ namespace, level, log }) => {
      const { message, timestamp: _timestamp, logger: _logger, stack: _stack, ...details } = log;
      const text = `${namespace ? `${namespace}: ` : ''}${message}${details.error ? `: ${String(details.error)}` : ''}`;
      // kafkajs retries or rejects after each of these, and the rejection carries the error to whoever waits.
      const warned = level <= logLevel.WARN && !EXPECTED.test(text);
      this.#once({ level: warned ? 'warn' : 'debug', message: text, details });
    };

  /** The same message again within ten seconds is left out: a broker that is away repeats itself. */
  #once(entry: KafkaLogEntry): void {
    const now = this.#nowMs();
    const last = this.#lastAt.get(entry.message);
    if (last !== undefined && now - last < REPEAT_MS) return;
    if (this.#lastAt.size > 1_000) this.#lastAt.clear();
    this.#lastAt.set(entry.message, now);
    this.#write(entry);
  }
}
