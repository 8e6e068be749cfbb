/** The HTTP ranker against a real server that misbehaves on purpose. */
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { FEATURE_VERSION, NUM_DENSE, NUM_IDS } from '@onemall/features';
import { ManualClock, SeededRandom, StageMeter } from '@onemall/service-kit';
import pino from 'pino';
import { followHttpRanker, type HttpRankerOptions } from '../src/adapters/http-ranker.ts';
import { RankerRefusedError, RankerReplacedError } from '../src/ranker.ts';

interface Asked {
  rankerVersion: string;
  dense: number[][];
  ids: number[][];
}
type Answer = (asked: Asked, response: ServerResponse, request: IncomingMessage) => void;

const scoresOf = ({ rankerVersion, dense, ids }: Asked) => ({
  rankerVersion,
  pCtr: dense.map((row) => row[0]!),
  pCtcvr: ids.map((row) => row[0]! / 1000),
  buyValueCents: dense.map((row) => row[1]!),
});
const good: Answer = (asked, response) => void response.end(JSON.stringify(scoresOf(asked)));
const text =
  (body: string, status = 200): Answer =>
  (_asked, response) =>
    void response.writeHead(status).end(body);

/** A clock whose sleeps end at once and are remembered; refreshes never come again. */
class SkippingClock extends ManualClock {
  readonly slept: number[] = [];
  override async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (ms >= 1e9) return super.sleep(ms, signal);
    this.slept.push(ms);
  }
}

/** @param answers of POST /score in order; the last one goes on */
async function start(t: TestContext, answers: Answer[], more: Partial<HttpRankerOptions> = {}) {
  const seen = { version: 'v1', asked: [] as Asked[], inFlight: 0, most: 0 };
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    if (request.url === '/ranker') {
      const identity = { featureVersion: FEATURE_VERSION, numDense: NUM_DENSE, numIds: NUM_IDS };
      response.end(
        JSON.stringify({ rankerVersion: seen.version, ...identity, egpmScale: { product_card: 2 } }),
      );
      return;
    }
    seen.most = Math.max(seen.most, ++seen.inFlight);
    response.once('close', () => seen.inFlight--);
    const asked = JSON.parse(Buffer.concat(parts).toString()) as Asked;
    seen.asked.push(asked);
    (answers[seen.asked.length - 1] ?? answers.at(-1)!)(asked, response, request);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const clock = new SkippingClock(0);
  const stop = new AbortController();
  const meter = new StageMeter('http-ranker-test');
  const { rankers, close } = followHttpRanker({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    timeoutMs: 20_000,
    maxInFlight: 2,
    batchRows: 4,
    attempts: 3,
    refreshMs: 1e9,
    firstRetryMs: 100,
    longestRetryMs: 1_000,
    clock,
    random: new SeededRandom(1),
    log: pino({ level: 'silent' }),
    meter,
    stopping: stop.signal,
    ...more,
  });
  t.after(async () => {
    stop.abort();
    await close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  await rankers.firstLoaded;
  const score = (n: number) => {
    const dense = Float32Array.from({ length: n * NUM_DENSE }, (_, i) => (i % 64) / 64);
    const ids = Int32Array.from({ length: n * NUM_IDS }, (_, i) => i % 900);
    return rankers
      .acquire()!
      .model.score(dense, ids, n)
      .then((scores) => ({ dense, ids, scores }));
  };
  const value = (name: string) => meter.status('running').values[name] ?? 0;
  return { rankers, score, seen, clock, stop, value };
}

test('rows go in requests of a bounded size, a bounded number at once, and come back in order', async (t) => {
  const { score, seen, rankers } = await start(t, [good]);
  assert.deepEqual(rankers.acquire()!.model.identity, {
    rankerVersion: 'v1',
    egpmScale: { product_card: 2 },
  });
  const { dense, ids, scores } = await score(18);
  for (let i = 0; i < 18; i++) {
    assert.equal(scores.pCtr[i], dense[i * NUM_DENSE]);
    assert.equal(scores.buyValueCents[i], dense[i * NUM_DENSE + 1]);
    assert.ok(Math.abs(scores.pCtcvr[i]! - ids[i * NUM_IDS]! / 1000) < 1e-6);
  }
  assert.deepEqual(seen.asked.map((asked) => asked.dense.length).sort(), [2, 4, 4, 4, 4]);
  assert.ok(seen.most <= 2, `${seen.most} at once`);
});

test('a ranker that is away, overloaded or breaks the connection is asked again with growing, jittered pauses', async (t) => {
  const broken: Answer = (_asked, response) => void response.destroy();
  const { score, clock, value } = await start(t, [
    text('busy', 503),
    broken,
    text('slow down', 429),
    text('oops', 500),
    text('bad gateway', 502),
    good,
  ]);
  const { dense, scores } = await score(1);
  assert.equal(scores.pCtr[0], dense[0]);
  assert.equal(value('ranker_retries'), 5);
  const bounds = [100, 200, 400, 800, 1_000];
  for (const [i, ms] of clock.slept.entries())
    assert.ok(ms >= bounds[i]! / 2 && ms < bounds[i]!, `pause ${i} was ${ms}`);
  // the pauses come out of the seed
  const again = new SeededRandom(1);
  assert.deepEqual(
    clock.slept,
    bounds.map((ms) => ms * (0.5 + 0.5 * again.next())),
  );
});

test('a ranker that does not answer in time is asked again', async (t) => {
  let asked = 0;
  const hangs: Answer = () => void asked++;
  const { score, value } = await start(t, [hangs, good], { timeoutMs: 300 });
  const { dense, scores } = await score(1);
  assert.equal(scores.pCtr[0], dense[0]);
  assert.ok(asked >= 1 && value('ranker_retries') >= 1);
});

for (const [what, answer] of [
  ['text', text('<html>hello</html>')],
  ['a short list', (asked, response) => void response.end(JSON.stringify({ ...scoresOf(asked), pCtr: [] }))],
  [
    'NaN, which JSON sends as null',
    (asked, response) => void response.end(JSON.stringify({ ...scoresOf(asked), pCtcvr: [Number.NaN] })),
  ],
  [
    'a probability above 1',
    (asked, response) => void response.end(JSON.stringify({ ...scoresOf(asked), pCtr: [1.5] })),
  ],
] as [string, Answer][])
  test(`${what} in place of scores is retried, and refused after three times`, async (t) => {
    const { score, seen, value } = await start(t, [answer, good, answer, answer, answer]);
    const { dense, scores } = await score(1);
    assert.equal(scores.pCtr[0], dense[0], 'once bad, then good');
    await assert.rejects(
      score(1),
      (error) => error instanceof RankerRefusedError && /answered 3 times/.test(error.message),
    );
    assert.equal(seen.asked.length, 5);
    assert.equal(value('ranker_bad_answers'), 4);
  });

test('a request that the ranker calls wrong is refused at once', async (t) => {
  const { score, seen } = await start(t, [text('too many rows', 413)]);
  await assert.rejects(
    score(2),
    (error) => error instanceof RankerRefusedError && /answered 413: too many rows/.test(error.message),
  );
  assert.equal(seen.asked.length, 1);
});

test('a ranker that was replaced meanwhile says so, and the next one acquired has the new version', async (t) => {
  const replaced: Answer = (_asked, response) => {
    seen.version = 'v2';
    response.writeHead(409).end('I am v2 by now');
  };
  const { score, seen, rankers } = await start(t, [replaced, good]);
  await assert.rejects(score(1), RankerReplacedError);
  assert.equal(rankers.acquire()!.model.identity.rankerVersion, 'v2');
  const { dense, scores } = await score(1);
  assert.equal(scores.pCtr[0], dense[0]);
  assert.equal(seen.asked[1]!.rankerVersion, 'v2');
});

test('the end of the service ends the waiting', async (t) => {
  const { score, stop } = await start(t, [text('busy', 503)], { clock: new ManualClock(0) });
  const waiting = score(1);
  stop.abort(new Error('stopping'));
  await assert.rejects(waiting, /stopping/);
});
