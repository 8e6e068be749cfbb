/** A OneMall service as a child process: started from its main.ts, found by the line it prints, asked over HTTP. */
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Child, type ChildOptions } from './child.ts';
import { waitFor } from './wait.ts';

export const REPOSITORY_ROOT = path.resolve(import.meta.dirname, '..', '..', '..');
/** Compiled and stripped of types once, modules are taken from here: half of the CPU time of a start. */
const COMPILE_CACHE = path.join(tmpdir(), 'onemall-compile-cache');
/** Services whose threads would each keep memory of glibc's allocator that was freed there; docker-compose.yml says the same. */
const ONE_ARENA = /^services\/(sample-assembler|retriever)\//;
/** The line that packages/service-kit prints when a service's health endpoints answer. */
const LISTENING = /^onemall-listening (http:\S+)/m;

export class ServiceProcess extends Child {
  #url: string | null = null;

  /** @param entry main.ts, relative to the repository's root */
  constructor(
    entry: string,
    options: Omit<ChildOptions, 'command' | 'args' | 'cwd' | 'kind'> & {
      args?: string[];
      nodeArgs?: string[];
    },
  ) {
    super({
      ...options,
      env: {
        NODE_COMPILE_CACHE: COMPILE_CACHE,
        ...(ONE_ARENA.test(entry) && { MALLOC_ARENA_MAX: '1' }),
        ...(options.env ?? process.env),
      },
      command: process.execPath,
      args: [...(options.nodeArgs ?? []), path.join(REPOSITORY_ROOT, entry), ...(options.args ?? [])],
      cwd: REPOSITORY_ROOT,
      kind: 'service',
    });
  }

  /** Address of /live /ready /metrics /status once it has been printed. */
  get url(): string | null {
    this.#url ??= this.printed(LISTENING);
    return this.#url;
  }

  /** First group of the first match in what it has written so far. */
  printed(pattern: RegExp): string | null {
    return pattern.exec(readFileSync(this.logFile, 'utf8'))?.[1] ?? null;
  }

  /** @throws Error with the end of its log when it ends first or takes longer */
  async listening(timeoutMs = 60_000): Promise<string> {
    return waitFor(() => this.url, {
      timeoutMs,
      what: `${this.name} to listen; its log is ${this.logFile}`,
      check: () => this.#alive(),
    });
  }

  /** Waits for /ready. @throws as `listening` */
  async ready(timeoutMs = 60_000): Promise<void> {
    const url = await this.listening(timeoutMs);
    await waitFor(
      async () => (await fetch(`${url}/ready`, { signal: AbortSignal.timeout(5000) }).catch(() => null))?.ok,
      { timeoutMs, what: `${this.name} to be ready; its log is ${this.logFile}`, check: () => this.#alive() },
    );
  }

  /** The JSON of /status; null while the service is away. */
  async status<T = unknown>(): Promise<T | null> {
    if (this.exit || !this.url) return null;
    try {
      const response = await fetch(`${this.url}/status`, { signal: AbortSignal.timeout(3000) });
      return response.ok ? ((await response.json()) as T) : null;
    } catch {
      return null;
    }
  }

  #alive(): void {
    if (this.exit)
      throw new Error(
        `${this.name} ended with exit code ${this.exit.code}; its log is ${this.logFile} and ends with:\n${this.logTail()}`,
      );
  }
}
