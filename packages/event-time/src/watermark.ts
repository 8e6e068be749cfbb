/**
 * Event-time watermark over several inputs that are read together: no event older than it is expected any more.
 *
 * An input holds the watermark unless it was seen at its end after the last advance began, so that an input that has
 * more to come, was not fetched yet, has no leader or an open transaction closes nothing. Once no input holds it, it
 * stands at the newest event, and after `maxDelayMs` of silence it moves on by elapsed time alone: never by the
 * absolute clock, so that replays of old event times are safe, and never by more silence than the fetches prove, however
 * long this process slept after their answers.
 */
export interface WatermarkOptions {
  numInputs: number;
  /** How far behind the newest event of its input an event may come, including the skew between producers. */
  outOfOrdernessMs: number;
  /** An end seen longer ago than this proves nothing any more. */
  inputFreshnessMs: number;
  /** Silence of all inputs after which the watermark moves by elapsed time. */
  maxDelayMs: number;
  /** An input at its end goes on holding for so long after its last event: for producers that come late. */
  idleTimeoutMs?: number;
  /** Where to go on from: the committed watermark. */
  startMs?: number;
}

interface Input {
  /** Greatest event time taken, M_i of the design; -Infinity before the first. */
  newestMs: number;
  /** When the fetch left that last found nothing more, on the monotonic clock; -Infinity while data is known to wait. */
  endSeenMs: number;
  /** When the last fetch that was answered had left. */
  answeredMs: number;
  lastTakenMs: number;
}

export class Watermark {
  readonly #options: Required<WatermarkOptions>;
  readonly #inputs: Input[];
  #valueMs: number;
  /** Monotonic time at which the last advance began. */
  #advanceBeganMs = Number.NEGATIVE_INFINITY;
  #lastTakenMs: number | undefined;

  constructor(options: WatermarkOptions) {
    this.#options = { idleTimeoutMs: 0, startMs: 0, ...options };
    this.#valueMs = this.#options.startMs;
    this.#inputs = Array.from({ length: options.numInputs }, () => ({
      newestMs: Number.NEGATIVE_INFINITY,
      endSeenMs: Number.NEGATIVE_INFINITY,
      answeredMs: Number.NEGATIVE_INFINITY,
      lastTakenMs: Number.NEGATIVE_INFINITY,
    }));
  }

  get valueMs(): number {
    return this.#valueMs;
  }

  /** An event was taken from an input. nowMs and all other `nowMs` are of one monotonic clock. */
  observe(input: number, eventTimeMs: number, nowMs: number): void {
    const state = this.#inputs[input]!;
    if (eventTimeMs > state.newestMs) state.newestMs = eventTimeMs;
    state.lastTakenMs = nowMs;
    this.#lastTakenMs = nowMs;
  }

  /** A fetch sent at sentAtMs brought records, or did not reach the end. */
  hasMore(input: number, sentAtMs: number): void {
    const state = this.#inputs[input]!;
    state.endSeenMs = Number.NEGATIVE_INFINITY;
    state.answeredMs = sentAtMs;
  }

  /** A successful fetch sent at sentAtMs found nothing, and everything before the high watermark is taken. */
  atEnd(input: number, sentAtMs: number): void {
    const state = this.#inputs[input]!;
    state.endSeenMs = sentAtMs;
    state.answeredMs = sentAtMs;
  }

  /** Whether the input keeps the watermark from passing its own events. */
  holds(input: number, nowMs: number): boolean {
    const { endSeenMs, lastTakenMs } = this.#inputs[input]!;
    return (
      endSeenMs <= this.#advanceBeganMs ||
      nowMs - endSeenMs > this.#options.inputFreshnessMs ||
      (this.#options.idleTimeoutMs > 0 && nowMs - lastTakenMs < this.#options.idleTimeoutMs)
    );
  }

  newestMs(input: number): number {
    return this.#inputs[input]!.newestMs;
  }

  /**
   * The input furthest behind among those that may still give an older event, or -1 where all are at their end. One
   * that has not answered yet comes first: nothing is known of it.
   */
  furthestBehind(nowMs: number): number {
    let behind = -1;
    for (let i = 0; i < this.#inputs.length; i++) {
      if (this.#inputs[i]!.answeredMs === Number.NEGATIVE_INFINITY) return i;
      if (!this.holds(i, nowMs)) continue;
      if (behind < 0 || this.#inputs[i]!.newestMs < this.#inputs[behind]!.newestMs) behind = i;
    }
    return behind;
  }

  /**
   * Moves the watermark as far as the inputs allow and gives it. It waits until every input that was last seen at its end
   * has answered a fetch sent since the last advance, at most inputFreshnessMs: otherwise inputs that answer often would make
   * every end that a slower one reports look old. One that is known to have more holds the watermark whether it answers or not:
   * full buffers of clicks and buys are joined for seconds before they are fetched again.
   * @param beganMs when this advance began: before the fetch left whose ends the next advance may rely on
   */
  advance(nowMs: number, beganMs = nowMs): number {
    const { outOfOrdernessMs, maxDelayMs, inputFreshnessMs } = this.#options;
    const isWaiting = nowMs - this.#advanceBeganMs <= inputFreshnessMs;
    const unanswered = this.#inputs.filter((i) => isWaiting && i.answeredMs <= this.#advanceBeganMs);
    if (unanswered.some((i) => i.endSeenMs !== Number.NEGATIVE_INFINITY)) return this.#valueMs;
    // Every input that holds counts, fetched or not: after a replay one that has not answered yet may be ahead of others.
    const held = this.#inputs.filter((_, i) => this.holds(i, nowMs)).map((i) => i.newestMs);
    let reachedMs: number;
    if (held.length > 0) reachedMs = Math.min(...held) - outOfOrdernessMs;
    else {
      // What came after the oldest of the ends was seen is not known: up to there, and not up to now, it was silent.
      const seenMs = Math.min(...this.#inputs.map((i) => i.endSeenMs));
      const silentMs = this.#lastTakenMs === undefined ? 0 : seenMs - this.#lastTakenMs;
      reachedMs =
        Math.max(...this.#inputs.map((i) => i.newestMs)) -
        outOfOrdernessMs +
        Math.max(0, Math.floor(silentMs - maxDelayMs));
    }
    // Else the ends that were seen still count: the next answers may hold ends that were on their way by now.
    if (unanswered.length === 0) this.#advanceBeganMs = beganMs;
    if (reachedMs > this.#valueMs) this.#valueMs = reachedMs;
    return this.#valueMs;
  }
}
