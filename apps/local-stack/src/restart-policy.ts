/** When a crashed service may start again; pure. */

export type RestartDecision = { restartAfterMs: number } | { giveUp: string };

const FIRST_DELAY_MS = 1_000;
const LONGEST_DELAY_MS = 30_000;
const LOOP_CRASHES = 5;
const LOOP_WINDOW_MS = 120_000;
/** What a service answers to a wrong setting: starting it again changes nothing. */
const EXIT_BAD_SETTING = 2;

/** @param crashTimesMs of this service, the newest last */
export function decideRestart(
  crashTimesMs: readonly number[],
  exit: { code: number | null; signal: string | null },
): RestartDecision {
  if (exit.code === EXIT_BAD_SETTING) return { giveUp: 'its settings are wrong' };
  const nowMs = crashTimesMs.at(-1) ?? 0;
  const recent = crashTimesMs.filter((t) => nowMs - t < LOOP_WINDOW_MS).length;
  if (recent >= LOOP_CRASHES)
    return { giveUp: `it crashed ${recent} times within ${LOOP_WINDOW_MS / 1000} s` };
  return { restartAfterMs: Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (recent - 1)) };
}
