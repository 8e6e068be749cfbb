import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, describe, type TestContext, test } from 'node:test';
import { HotSwap, ManualClock, StageMeter } from '@onemall/service-kit';
import pino from 'pino';
import { AdmissionGate, OverloadedError } from '../src/adapters/admission-gate.ts';
import { type HttpApi, serveHttp } from '../src/adapters/http-api.ts';
import { type LoadedPolicy, Retrieval } from '../src/retrieval.ts';
import { packSid } from '../src/stages/build-trie.ts';
import { Popularity } from '../src/state/popularity.ts';
import { SidCatalogue } from '../src/state/sid-catalogue.ts';
import { type TablePolicy, tablePolicy } from './policy-table.ts';

const NOW_MS = 1_000_000;
const HISTORY = { exposures: [], clicks: [], buys: [] };

/** A retriever's HTTP face over a catalogue of 40 items, two on each SID. */
async function startApi(
  more: Partial<Parameters<typeof serveHttp>[0]> & { concurrency?: number; queueLength?: number } = {},
  t?: TestContext,
) {
  const catalogue = new SidCatalogue({ rebuildMs: 0 });
  for (let i = 0; i < 40; i++) {
    const itemId = `item-${i}`;
    const n = i >> 1;
    catalogue.putItem(itemId, {
      itemId,
      scenario: 'product_card',
      validFromMs: i,
      title: '',
      category: i % 4 < 2 ? 'shoes' : 'hats',
      tags: [],
      priceCents: 1,
      sellerId: 's',
      productId: null,
      contentVideo: false,
      embedding: null,
    });
    const sid = { scenario: 'product_card', codebookVersion: 1, c1: n % 5, c2: n % 3, c3: n % 7 };
    catalogue.putItemSid(`${itemId}:1`, { itemId, sid, validFromMs: 0, reason: 'NEW_ITEM', createdMs: 0 });
  }
  const clock = new ManualClock(NOW_MS);
  const meter = new StageMeter('http-test');
  const retrieval = new Retrieval({
    catalogue,
    popularity: new Popularity(1000),
    itemOrder: 'freshness',
    denseWeight: 0,
    nowMs: () => clock.nowMs(),
  });
  const policies = new HotSwap<LoadedPolicy>(
    (policy) => policy.search.close(),
    (error) => assert.fail(String(error)),
  );
  const api: HttpApi = await serveHttp({
    host: '127.0.0.1',
    port: 0,
    limits: {
      scenarios: ['product_card', 'live_stream'],
      maxK: 50,
      maxBeam: 60,
      defaultBeam: 40,
      maxHistory: 3,
    },
    maxBodyBytes: 4096,
    timeoutMs: 60_000,
    gate: new AdmissionGate({ concurrency: more.concurrency ?? 2, queueLength: more.queueLength ?? 2 }),
    allowedClockSkewMs: 1000,
    retrieval,
    acquirePolicy: () => policies.acquire(),
    clock,
    log: pino({ level: 'silent' }),
    meter,
    ...more,
  });
  const post = async (body: unknown) => {
    const response = await fetch(`${api.url}/retrieve`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    return {
      status: response.status,
      retryAfter: response.headers.get('retry-after'),
      body: (await response.json()) as {
        error?: string;
        policyVersion?: string;
        codebookVersion?: number;
        items?: { itemId: string; sid: { c1: number; c2: number; c3: number }; score: number }[];
      },
    };
  };
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= api.close().then(() => policies.close());
    return stopped;
  };
  // also where the test fails: an open server would keep the file from ending
  t?.after(stop);
  return { api, post, policies, catalogue, meter, stop };
}
type Started = Awaited<ReturnType<typeof startApi>>;

async function* inOrderOfArrival<T>(promises: Promise<T>[]): AsyncGenerator<T> {
  const waiting = new Map(promises.map((p, i) => [i, p.then((value) => ({ i, value }))]));
  while (waiting.size > 0) {
    const { i, value } = await Promise.race(waiting.values());
    waiting.delete(i);
    yield value;
  }
}

describe('POST /retrieve', () => {
  let started: Started;
  let policy: TablePolicy;
  before(async () => {
    started = await startApi();
  });
  after(() => started.stop());
  const ask = (more: object = {}) =>
    started.post({ scenario: 'product_card', history: HISTORY, k: 10, ...more });

  test('says 503 with a reason and Retry-After while no policy is loaded', async () => {
    const { status, body, retryAfter } = await ask();
    assert.equal(status, 503);
    assert.match(body.error!, /No policy is loaded yet/);
    assert.equal(retryAfter, '1');
    policy = tablePolicy('1-a');
    started.policies.swap(policy);
  });

  test('gives the exact best items at full width, several on one SID in their order', async () => {
    const { status, body } = await ask();
    assert.equal(status, 200);
    assert.equal(body.policyVersion, '1-a');
    assert.equal(body.codebookVersion, 1);
    const trie = started.catalogue.trie('product_card', 1, [8, 8, 8], NOW_MS);
    const best = [...trie.packed]
      .map((packed) => ({ packed, score: 0 }))
      .map(({ packed }) => {
        const items = [...started.catalogue.itemsOf('product_card', 1, packed)];
        return { packed, items };
      });
    const scoreOf = (sid: { c1: number; c2: number; c3: number }) =>
      policy.table.tokenLogProbs(sid).reduce((a, b) => a + b, 0);
    assert.equal(body.items!.length, 10);
    for (const item of body.items!) {
      assert.ok(best.find((b) => b.packed === packSid(item.sid))!.items.includes(item.itemId));
      assert.ok(Math.abs(item.score - scoreOf(item.sid)) < 1e-5);
    }
    const [first, second] = body.items!;
    assert.deepEqual(first!.sid, second!.sid);
    assert.ok(Number(first!.itemId.slice(5)) > Number(second!.itemId.slice(5)), 'the fresher one first');
  });

  test('filters: categories, excluded items, bought items', async () => {
    const all = (await ask({ k: 40 })).body.items!.map((i) => i.itemId);
    assert.equal(all.length, 40);
    const hats = (await ask({ k: 40, filters: { categories: ['hats'] } })).body.items!;
    assert.equal(hats.length, 20);
    const without = await ask({
      k: 40,
      filters: { excludeItemIds: [all[0], all[1]], excludeBought: true },
      history: { ...HISTORY, buys: [{ itemId: all[2], eventTimeMs: 5 }] },
    });
    assert.deepEqual(
      without.body.items!.map((i) => i.itemId).sort(),
      all.slice(3).sort(),
      'everything but three',
    );
    const none = await ask({ filters: { categories: ['cars'] } });
    assert.deepEqual([none.status, none.body.items], [200, []]);
  });

  test('validation errors say where, what was expected and what came', async () => {
    const errorOf = async (body: unknown) => {
      const answer = await started.post(body);
      assert.equal(answer.status, 400, JSON.stringify(answer.body));
      return answer.body.error!;
    };
    const good = { scenario: 'product_card', history: HISTORY, k: 10 };
    assert.match(
      await errorOf({ ...good, scenario: 'cars' }),
      /body\.scenario must be one of product_card, live_stream, got "cars"/,
    );
    assert.match(await errorOf({ ...good, k: 5000 }), /body\.k must be <= 50, got 5000/);
    assert.match(await errorOf({ ...good, k: '10' }), /body\.k must be integer, got "10"/);
    assert.match(await errorOf({ scenario: 'product_card', k: 1 }), /must have required property 'history'/);
    assert.match(await errorOf({ ...good, beam: 10 }), /must not have the property beam/);
    assert.match(
      await errorOf({ ...good, beamWidth: 5 }),
      /beamWidth must be at least body\.k \(10\), got 5/,
    );
    assert.match(
      await errorOf({ ...good, requestTimeMs: NOW_MS + 1001 }),
      /requestTimeMs must be at most 1001000/,
    );
    const event = { itemId: 'a', eventTimeMs: 1 };
    assert.match(
      await errorOf({ ...good, history: { clicks: [event, event, event, event] } }),
      /body\.history\.clicks must NOT have more than 3 items/,
    );
    assert.match(
      await errorOf({ ...good, history: { clicks: [{ itemId: '', eventTimeMs: 1 }] } }),
      /body\.history\.clicks\.0\.itemId/,
    );
    assert.match(await errorOf('{"scenario":'), /JSON/i);
  });

  test('each behaviour of the history must be newest first; events of one moment may stand in any order', async () => {
    const events = (...times: number[]) =>
      times.map((eventTimeMs, i) => ({ itemId: `item-${i}`, eventTimeMs }));
    for (const behaviour of ['exposures', 'clicks', 'buys']) {
      const { status, body } = await ask({ history: { [behaviour]: events(7, 5, 6) } });
      assert.equal(status, 400);
      assert.equal(
        body.error,
        `body.history.${behaviour} must be newest first, but the eventTimeMs of event 2 (6) is later than that of event 1 (5)`,
      );
      assert.equal((await ask({ history: { [behaviour]: events(7, 5, 5) } })).status, 200);
    }
  });

  test('a body over the limit is 413, an unknown path 404 with what there is', async () => {
    const { status } = await ask({ userId: 'x'.repeat(5000) });
    assert.equal(status, 413);
    const response = await fetch(`${started.api.url}/nothing`);
    assert.equal(response.status, 404);
    assert.match(((await response.json()) as { error: string }).error, /POST \/retrieve/);
  });

  test('a scenario without SIDs is 503 with the reason', async () => {
    const { status, body } = await ask({ scenario: 'live_stream' });
    assert.equal(status, 503);
    assert.match(body.error!, /No item of live_stream has a SID in codebook version 1/);
  });

  test('/openapi.json describes the request with its limits', async () => {
    const document = (await (await fetch(`${started.api.url}/openapi.json`)).json()) as {
      openapi: string;
      paths: Record<
        string,
        {
          post: {
            requestBody: {
              content: Record<string, { schema: { properties: Record<string, { maximum?: number }> } }>;
            };
            responses: object;
          };
        }
      >;
    };
    assert.equal(document.openapi, '3.1.0');
    const { post } = document.paths['/retrieve']!;
    const { properties } = post.requestBody.content['application/json']!.schema;
    assert.equal(properties.k!.maximum, 50);
    assert.deepEqual(Object.keys(post.responses), ['200', '400', '413', '503', '504']);
    assert.equal(Object.keys(document.paths).length, 1);
  });

  test('a room that comes on the air is served at once and gone when it ends', async () => {
    const sid = { scenario: 'live_stream', codebookVersion: 1, c1: 1, c2: 1, c3: 1 };
    const room = {
      liveId: 'room',
      validFromMs: 0,
      reason: 'NEW_ITEM' as const,
      explainingItemId: null,
      sourcePartition: 0,
      sourceOffset: 0,
      createdMs: 0,
    };
    started.catalogue.putLiveSid('room:1', { ...room, sid, sellingItemIds: ['item-1'] });
    const served = await ask({ scenario: 'live_stream' });
    assert.deepEqual(
      served.body.items!.map((i) => i.itemId),
      ['room'],
    );
    started.catalogue.putLiveSid('room:1', { ...room, sid: null, sellingItemIds: [] });
    assert.equal((await ask({ scenario: 'live_stream' })).status, 503);
  });
});

test('no request fails while policies are swapped under load, and each old policy closes', async (t) => {
  const started = await startApi({ concurrency: 4, queueLength: 1000 }, t);
  const policies = Array.from({ length: 6 }, (_, i) =>
    tablePolicy(`${i}-p`, { seed: i, beforeDecode: () => new Promise((resolve) => setImmediate(resolve)) }),
  );
  started.policies.swap(policies[0]!);
  const statuses: number[] = [];
  const versions = new Set<string>();
  const clients = Array.from({ length: 8 }, async () => {
    for (let i = 0; i < 15; i++) {
      const { status, body } = await started.post({ scenario: 'product_card', history: HISTORY, k: 5 });
      statuses.push(status);
      versions.add(body.policyVersion!);
      const swapAt = policies[Math.floor(statuses.length / 20)];
      if (swapAt && started.policies.current !== swapAt && statuses.length % 20 === 0)
        started.policies.swap(swapAt);
    }
  });
  await Promise.all(clients);
  assert.deepEqual(
    statuses,
    statuses.map(() => 200),
  );
  assert.equal(statuses.length, 120);
  assert.ok(versions.size >= 4, `${[...versions]}`);
  await started.stop();
  for (const policy of policies) if (policy.seen.decodes > 0) assert.ok(policy.seen.closed);
});

test('requests beyond the queue get 503 at once, those waiting are answered', async (t) => {
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const started = await startApi({ concurrency: 1, queueLength: 1 }, t);
  started.policies.swap(
    tablePolicy('1-slow', {
      beforeDecode: () => {
        begun.resolve();
        return gate.promise;
      },
    }),
  );
  const ask = () => started.post({ scenario: 'product_card', history: HISTORY, k: 5 });
  const first = ask();
  await begun.promise;
  const others = [ask(), ask(), ask()];
  const refused = [];
  for await (const answer of inOrderOfArrival(others)) {
    refused.push(answer);
    if (refused.length === 2) break;
  }
  for (const { status, retryAfter, body } of refused) {
    assert.deepEqual([status, retryAfter], [503, '1']);
    assert.match(body.error!, /1 searches run and 1 wait, which is the limit/);
  }
  gate.resolve();
  const statuses = (await Promise.all([first, ...others])).map((a) => a.status).sort();
  assert.deepEqual(statuses, [200, 200, 503, 503]);
  assert.equal(started.meter.status('running').values.http_overloaded, 2);
  await started.stop();
});

test('a search over its time is 504, a wait over its time 503; the place in line is free again', async (t) => {
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const timers: AbortController[] = [];
  const bothWait = Promise.withResolvers<void>();
  const startTimeout = (): AbortSignal => {
    const timer = new AbortController();
    timers.push(timer);
    if (timers.length === 2) bothWait.resolve();
    return timer.signal;
  };
  const started = await startApi({ concurrency: 1, queueLength: 1, timeoutMs: 30, startTimeout }, t);
  started.policies.swap(
    tablePolicy('1-slow', {
      beforeDecode: () => {
        begun.resolve();
        return gate.promise;
      },
    }),
  );
  const ask = () => started.post({ scenario: 'product_card', history: HISTORY, k: 5 });
  const searching = ask();
  await begun.promise;
  const waiting = ask();
  await bothWait.promise;
  timers[1]!.abort();
  const waited = await waiting;
  assert.equal(waited.status, 503);
  assert.match(waited.body.error!, /waited until its time was over/);
  timers[0]!.abort();
  gate.resolve();
  const late = await searching;
  assert.equal(late.status, 504);
  assert.match(late.body.error!, /longer than 30 ms/);
  assert.equal((await ask()).status, 200);
});

test('a body that does not come is given up: 408, and the connection ends', {
  timeout: 20_000,
}, async (t) => {
  let socket: Socket | undefined;
  // before the server closes, which waits for it
  t.after(() => socket?.destroy());
  const started = await startApi({ timeoutMs: 50 }, t);
  socket = connect(started.api.port, '127.0.0.1');
  socket.write(
    'POST /retrieve HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"k":',
  );
  assert.match(await text(socket), /^HTTP\/1\.1 408 /);
});

test('a taken port is one clear message', async (t) => {
  const started = await startApi({}, t);
  await assert.rejects(startApi({ port: started.api.port }), /is taken: set ONEMALL_RETRIEVER_PORT/);
  await started.stop();
});

test('background tasks give way to others and are not starved by them', async () => {
  const gate = new AdmissionGate({ concurrency: 1, queueLength: 100 });
  const { signal } = new AbortController();
  const first = Promise.withResolvers<void>();
  const order: string[] = [];
  const runs: Promise<unknown>[] = [gate.run(() => first.promise, signal)];
  for (const name of ['b1', 'b2']) runs.push(gate.runInBackground(async () => order.push(name)));
  for (let i = 0; i < 20; i++) runs.push(gate.run(async () => order.push(`f${i}`), signal));
  first.resolve();
  await Promise.all(runs);
  assert.deepEqual(order.slice(0, 9), ['f0', 'f1', 'f2', 'f3', 'f4', 'f5', 'f6', 'f7', 'b1']);
  assert.equal(order.indexOf('b2'), 17);
  assert.equal(order.length, 22);
  assert.deepEqual([gate.running, gate.waiting], [0, 0]);
});

test('AdmissionGate runs at most its number at once and in order of arrival', async () => {
  const gate = new AdmissionGate({ concurrency: 2, queueLength: 3 });
  const { signal } = new AbortController();
  const order: number[] = [];
  const ends = Array.from({ length: 5 }, () => Promise.withResolvers<void>());
  let most = 0;
  const runs = ends.map((end, i) =>
    gate.run(async () => {
      order.push(i);
      most = Math.max(most, gate.running);
      await end.promise;
    }, signal),
  );
  await assert.rejects(
    gate.run(async () => {}, signal),
    OverloadedError,
  );
  for (const end of ends) end.resolve();
  await Promise.all(runs);
  assert.deepEqual(order, [0, 1, 2, 3, 4]);
  assert.equal(most, 2);
  assert.deepEqual([gate.running, gate.waiting], [0, 0]);
  await assert.rejects(
    gate.run(async () => {
      throw new Error('task failed');
    }, signal),
    /task failed/,
  );
  assert.equal(gate.running, 0);
});
