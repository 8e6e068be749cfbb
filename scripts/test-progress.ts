/** Turns the events of node:test's runner for one file into counts, and the details of what failed. */
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

const MAX_OUTPUT = 20_000;

export class FileResult {
  readonly totals: Totals = { passed: 0, failed: 0, skipped: 0 };
  readonly file: string;
  #output = '';
  #failures: string[] = [];
  #skipReasons = new Set<string>();

  /** @param file absolute path of the test file */
  constructor(file: string) {
    this.file = file;
  }

  take(event: TestEvent): void {
    if (event.type === 'test:stdout' || event.type === 'test:stderr') {
      this.#output = (this.#output + event.data.message).slice(-MAX_OUTPUT);
    } else if (event.type === 'test:pass') {
      const { name, details, skip, todo } = event.data;
      if (details.type === 'suite') return;
      // The runner reports a file as one passed test when it defines none.
      if (name === this.file) this.fail('The file defines no test');
      else if (isSet(skip) || isSet(todo)) {
        this.totals.skipped++;
        this.#skipReasons.add(`  skipped: ${typeof skip === 'string' ? skip : 'no reason given'}`);
      } else this.totals.passed++;
    } else if (event.type === 'test:fail') {
      const { line, name, details } = event.data;
      // A suite fails because of its tests: those have been told already.
      if (details.type === 'suite') return;
      const cause = details.error.cause ?? details.error;
      if (name === this.file) this.fail('The file did not run to its end');
      else this.fail(`${name}${line ? ` (line ${line})` : ''}\n${indent(inspect(cause, { depth: 6 }))}`);
    }
  }

  fail(message: string): void {
    this.totals.failed++;
    this.#failures.push(`  ✖ ${message}`);
  }

  /** Adds to the story of a failure without counting another. */
  note(message: string): void {
    this.#failures.push(`  ${message}`);
  }

  /** Why tests were skipped, what failed, and what the file printed; nothing when all is well. */
  details(): string[] {
    if (this.totals.failed === 0) return [...this.#skipReasons];
    const output = this.#output.trim();
    return [...this.#skipReasons, ...this.#failures, ...(output ? [`  its output:\n${indent(output)}`] : [])];
  }
}

const isSet = (mark: string | boolean | undefined): boolean => mark !== undefined && mark !== false;

const indent = (text: string): string =>
  text
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n');
