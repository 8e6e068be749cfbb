/**
 * A ranker behind HTTP. GET URL/ranker names it: { rankerVersion, featureVersion, numDense, numIds, egpmScale }; POST URL/score
 * takes { rankerVersion, dense: number[n][numDense], ids: number[n][numIds] } and answers { rankerVersion, pCtr: number[n],
 * pCtcvr: number[n], buyValueCents: number[n] }, or 409 when it has another version by now.
 *
 * | what comes | what happens |
 * |---|---|
 * | no connection, no answer in time, 408, 429, 5xx | asked again until it answers, pauses doubling up to a bound, with jitter |
 * | 200 with text, a short list, NaN | asked again, `attempts` times in all; then refused |
 * | any other status | refused at once |
 * | 409, or scores of another version | the identity is read anew; where it is another, the rows go to that one |
 */

import { NUM_DENSE, NUM_IDS } from '@onemall/features';
import type { RankerScores } from '@onemall/learning';
import type { Clock, Logger, SeededRandom, StageMeter } from '@onemall/service-kit';
import { RankerRefusedError, RankerReplacedError, type RankerSource, type ScorerRanker } from '../ranker.ts';
import { BadAnswerError, OtherVersionError, readIdentity, readScores } from '../stages/read-answer.ts';
import type { RankerIdentity } from '../stages/score-candidates.ts';

export interface HttpRankerOptions {
  url: string;
  timeoutMs: number;
  /** Requests under way at most. */
  maxInFlight: number;
  /** Rows of one request at most. */
  batchRows: number;
  /** Bad answers to one request before it is refused. */
  attempts: number;
  /** How often the identity is read, so that a new version is noticed. */
  refreshMs: number;
  firstRetryMs: number;
  longestRetryMs: number;
  clock: Clock;
  random: SeededRandom;
  log: Logger;
  meter: StageMeter;
  stopping: AbortSignal;
}

/** The ranker may answer later: nothing is wrong with the rows. */
class UnavailableError extends Error {
  override name = 'UnavailableError';
}

export function followHttpRanker(options: HttpRankerOptions): {
  rankers: RankerSource;
  close(): Promise<void>;
} {
  const ranker = new HttpRanker(options);
  const following = ranker.follow();
  return {
    rankers: {
      firstLoaded: ranker.firstLoaded,
      acquire: () => ranker.identity && { model: ranker.as(ranker.identity), release: () => {} },
    },
    close: () => following,
  };
}

class HttpRanker {
  readonly #options: HttpRankerOptions;
  readonly #first = Promise.withResolvers<void>();
  #inFlight = 0;
  readonly #waiting: (() => void)[] = [];
  identity: RankerIdentity | undefined;

  constructor(options: HttpRankerOptions) {
    this.#options = options;
  }
  get firstLoaded(): Promise<void> {
    return this.#first.promise;
  }

  /** Reads the identity every now and then until the service stops. */
  async follow(): Promise<void> {
    const { clock, refreshMs, stopping, log } = this.#options;
    let warned = '';
    while (!stopping.aborted) {
      try {
        await this.#readIdentity();
        warned = '';
      } catch (error) {
        if (stopping.aborted) return;
        const { message } = error as Error;
        if (message !== warned) log.warn({ err: error }, `the ranker does not tell its version: ${message}`);
        warned = message;
      }
      await clock.sleep(refreshMs, stopping).catch(() => {});
    }
  }

  async #readIdentity(): Promise<void> {
    const { log, meter } = this.#options;
    const identity = readIdentity(await this.#ask('/ranker'));
    const { rankerVersion } = identity;
    if (this.identity?.rankerVersion !== rankerVersion) {
      log.info({ rankerVersion }, 'a new ranker scores');
      meter.add('models_loaded');
    }
    this.identity = identity;
    this.#first.resolve();
  }

  as(identity: RankerIdentity): ScorerRanker {
    return { identity, score: (dense, ids, n) => this.#score(identity, dense, ids, n) };
  }

  async #score(
    identity: RankerIdentity,
    dense: Float32Array,
    ids: Int32Array,
    n: number,
  ): Promise<RankerScores> {
    const { batchRows } = this.#options;
    const scores = {
      pCtr: new Float32Array(n),
      pCtcvr: new Float32Array(n),
      buyValueCents: new Float32Array(n),
    };
    const starts = Array.from({ length: Math.ceil(n / batchRows) }, (_, i) => i * batchRows);
    await Promise.all(
      starts.map(async (from) => {
        const to = Math.min(n, from + batchRows);
        const body = JSON.stringify({
          rankerVersion: identity.rankerVersion,
          dense: rowsOf(dense, NUM_DENSE, from, to),
          ids: rowsOf(ids, NUM_IDS, from, to),
        });
        const part = await this.#inTurn(() => this.#untilAnswered(identity, body, to - from));
        for (const name of ['pCtr', 'pCtcvr', 'buyValueCents'] as const) scores[name].set(part[name], from);
      }),
    );
    return scores;
  }

  async #untilAnswered(identity: RankerIdentity, body: string, numRows: number): Promise<RankerScores> {
    const { attempts, clock, longestRetryMs, firstRetryMs, log, meter, random, stopping } = this.#options;
    let badAnswers = 0;
    for (let waitMs = firstRetryMs; ; waitMs = Math.min(longestRetryMs, 2 * waitMs)) {
      let failure: Error;
      try {
        return readScores(await this.#ask('/score', body), identity.rankerVersion, numRows);
      } catch (error) {
        stopping.throwIfAborted();
        failure = error as Error;
        if (error instanceof OtherVersionError) {
          await this.#readIdentity().catch(() => {}); // it is asked again below, and by `follow`
          if (this.identity?.rankerVersion !== identity.rankerVersion)
            throw new RankerReplacedError(failure.message, { cause: failure });
        }
        if (error instanceof BadAnswerError || error instanceof OtherVersionError) {
          meter.add('ranker_bad_answers');
          badAnswers++;
        } else if (!(error instanceof UnavailableError)) throw error;
      }
      if (badAnswers >= attempts)
        throw new RankerRefusedError(
          `The ranker answered ${badAnswers} times with something else than scores: ${failure.message}`,
          { cause: failure },
        );
      meter.add('ranker_retries');
      log.debug({ err: failure, waitMs }, 'the ranker is asked again');
      await clock.sleep(waitMs * (0.5 + 0.5 * random.next()), stopping);
    }
  }

  async #ask(path: string, body?: string): Promise<string> {
    const { url, timeoutMs, stopping } = this.#options;
    const signal = AbortSignal.any([stopping, AbortSignal.timeout(timeoutMs)]);
    let status: number;
    let text: string;
    try {
      const response = await fetch(new URL(path, url), {
        signal,
        ...(body !== undefined && { method: 'POST', headers: { 'content-type': 'application/json' }, body }),
      });
      status = response.status;
      text = await response.text();
    } catch (cause) {
      throw new UnavailableError(
        `${path} of ${url} did not answer within ${timeoutMs} ms: ${String(cause)}`,
        {
          cause,
        },
      );
    }
    if (status === 200) return text;
    const said = `${path} of ${url} answered ${status}: ${text.slice(0, 200)}`;
    if (status === 408 || status === 429 || status >= 500) throw new UnavailableError(said);
    if (status === 409) throw new OtherVersionError(said);
    throw new RankerRefusedError(said);
  }

  async #inTurn<T>(task: () => Promise<T>): Promise<T> {
    if (this.#inFlight < this.#options.maxInFlight) this.#inFlight++;
    else await new Promise<void>((enter) => this.#waiting.push(enter));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#inFlight--;
    }
  }
}

const rowsOf = (all: Float32Array | Int32Array, width: number, from: number, to: number): number[][] =>
  Array.from({ length: to - from }, (_, i) =>
    Array.from(all.subarray((from + i) * width, (from + i + 1) * width)),
  );
