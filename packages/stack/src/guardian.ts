import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';

/**
 * Children run in their own process groups, so that Ctrl-C reaches the launcher alone and it can stop them in order.
 * The guardian is the other side of that: a small shell that stops them if the launcher dies without doing so.
 */
export class Guardian {
  #child: ChildProcess;
  constructor() {
    this.#child = spawn('sh', [path.join(import.meta.dirname, 'guardian.sh')], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    });
    this.#child.on('error', (cause) => {
      throw new Error(`Cannot start sh, which stops the children of a killed launcher: ${cause.message}`, {
        cause,
      });
    });
    // A guardian that is gone must not take its launcher with it.
    this.#child.stdin!.on('error', () => {});
    this.#child.unref();
    (this.#child.stdin as unknown as { unref(): void }).unref();
  }
  watch(kind: 'service' | 'stack', pid: number): void {
    this.#write(`${kind} ${pid}`);
  }
  gone(pid: number): void {
    this.#write(`gone ${pid}`);
  }
  /** Removes this temporary folder when the launcher dies. */
  removeFolder(folder: string): void {
    this.#write(`folder ${folder}`);
  }
  close(): void {
    this.#write('bye');
    this.#child.stdin!.end();
  }
  #write(line: string): void {
    this.#child.stdin!.write(`${line}\n`);
  }
}
