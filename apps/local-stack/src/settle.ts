/** Waits until every input is read to its end, so that the counts of the stages belong together. */
import type { StageView } from './run-history.ts';

/** Polls without change after which nothing more is expected. */
const QUIET_POLLS = 2;

export interface SettleOptions {
  /** Asks the services once. */
  poll: () => Promise<void>;
  views: () => readonly Pick<StageView, 'state' | 'in' | 'out' | 'lag'>[];
  /** Resolves after the time between two polls, at once when `stop` is aborted. */
  pause: () => Promise<void>;
  nowMs: () => number;
  /** No poll begins after this time. */
  untilMs: number;
  /** Aborted: whoever stops the run by hand does not wait for what is under way. */
  stop: AbortSignal;
}

export async function settle({ poll, views, pause, nowMs, untilMs, stop }: SettleOptions): Promise<void> {
  let before = '';
  for (let quiet = 0; quiet < QUIET_POLLS && nowMs() < untilMs; ) {
    await pause();
    if (stop.aborted) return;
    await poll();
    const running = views().filter((v) => v.state === 'running');
    const now = running.map((v) => `${v.in} ${v.out}`).join();
    quiet = now === before && running.every((v) => !v.lag) ? quiet + 1 : 0;
    before = now;
  }
}
