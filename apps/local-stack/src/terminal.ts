/** Writes to the terminal: plain lines, or one screen that is drawn over and over. */
import { renderLine, renderScreen, type ScreenInput } from './screen.ts';

const PLAIN_EVERY_MS = 5_000;
const HOME = '\x1b[H';
const CLEAR = '\x1b[2J';
const CLEAR_LINE_END = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

export class Terminal {
  readonly messages: string[] = [];
  #out: NodeJS.WriteStream;
  #live = false;
  #lastPlainMs = Number.NEGATIVE_INFINITY;
  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
  }

  /** A line that stays; shown below the table while the screen is live. */
  say(line: string): void {
    this.messages.push(...line.split('\n'));
    if (this.messages.length > 200) this.messages.splice(0, 100);
    if (!this.#live) this.#out.write(`${line}\n`);
  }

  /** Begins to draw over; without a terminal lines go on one after the other. */
  goLive(): void {
    if (!this.#out.isTTY) return;
    this.#live = true;
    this.#out.write(CLEAR);
  }

  show(input: Omit<ScreenInput, 'columns' | 'messages'>, nowMs: number): void {
    const full = { ...input, messages: this.messages, columns: this.#out.columns ?? 120 };
    if (this.#live) {
      const lines = renderScreen(full).map((l) => l + CLEAR_LINE_END);
      this.#out.write(`${HOME}${lines.join('\n')}\n${CLEAR_BELOW}`);
    } else if (nowMs - this.#lastPlainMs >= PLAIN_EVERY_MS) {
      this.#lastPlainMs = nowMs;
      this.#out.write(`${renderLine(full)}\n`);
    }
  }

  /** The last screen stays where it is; what follows comes below. */
  endLive(): void {
    this.#live = false;
  }
}
