export interface WaitOptions {
  /** 30 s unless given. */
  timeoutMs?: number;
  /** Completes the sentence "Waited n ms for ...". */
  what: string;
  intervalMs?: number;
  /** Throw in here to give up early. */
  check?: () => void;
}

/**
 * Asks until the answer is not null, undefined or false, and gives it back.
 * @throws Error naming what was waited for, after timeoutMs; errors of the condition pass through
 */
export async function waitFor<T>(
  condition: () => T | null | undefined | false | Promise<T | null | undefined | false>,
  { timeoutMs = 30_000, what, intervalMs = 50, check }: WaitOptions,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await condition();
    if (answer !== null && answer !== undefined && answer !== false) return answer;
    check?.();
    if (performance.now() > deadline) throw new Error(`Waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
