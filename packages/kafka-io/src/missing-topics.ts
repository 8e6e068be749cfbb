/**
 * When to believe brokers that a topic does not exist. One that was just created is not known to every broker at once, and
 * a broker that has just started answers before it has caught up with the cluster's metadata: it learns of new topics only
 * after it has taken over each of its partitions, which took one with 1,500 of them more than 10 s on a busy machine.
 */
const CERTAIN_AFTER_MS = 30_000;

export class MissingTopics {
  #sinceMs: number | null = null;

  /**
   * @param error of an attempt to look topics up
   * @param nowMs monotonic
   * @returns whether brokers have said for so long, and nothing else meanwhile, that a topic does not exist
   */
  isCertain(error: unknown, nowMs: number): boolean {
    // While no broker can be asked, nothing is known of the topic.
    if ((error as { type?: unknown }).type !== 'UNKNOWN_TOPIC_OR_PARTITION') {
      this.#sinceMs = null;
      return false;
    }
    return this.isCertainOfAnswer(nowMs);
  }

  /** The same for an answer that leaves the topic out. */
  isCertainOfAnswer(nowMs: number): boolean {
    this.#sinceMs ??= nowMs;
    return nowMs - this.#sinceMs >= CERTAIN_AFTER_MS;
  }
}
