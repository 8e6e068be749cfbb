/** A real policy on threads: the same answers as on this thread, several at once, cancelled, closed, refused. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sidLayout } from '@onemall/features';
import {
  createRetrievalTrainer,
  loadPolicy,
  PublishedModelError,
  type RetrievalTrainer,
} from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import { openSearchThreads } from '../src/adapters/search-threads.ts';
import { type PolicySearch, runSearch, type SearchJob } from '../src/search.ts';
import { buildTrie, mergeSids, packSid, unpackSid } from '../src/stages/build-trie.ts';
import { encodeRequest } from '../src/stages/encode-request.ts';
import { NO_EXCLUSION } from '../src/stages/exclude-sids.ts';
import { weighTrie } from '../src/stages/weigh-trie.ts';

const NUM_CODES = { product_card: [12, 10, 14], live_stream: [6, 6, 6] } as const;
const SCENARIOS = Object.keys(NUM_CODES);
const LAYOUT = sidLayout(SCENARIOS, NUM_CODES);
const random = new SeededRandom(5);
const SIDS = new Set(
  Array.from({ length: 300 }, () => packSid({ c1: random.int(12), c2: random.int(10), c3: random.int(14) })),
);
const trie = buildTrie(NUM_CODES.product_card, mergeSids(new Float64Array(0), SIDS, new Set()));

describe('a policy on threads', () => {
  let trainer: RetrievalTrainer;
  let files: Map<string, Uint8Array>;
  let threads: PolicySearch;
  const failures: Error[] = [];
  before(async () => {
    trainer = await createRetrievalTrainer({
      preset: 'tiny',
      scenarios: SCENARIOS,
      numCodes: NUM_CODES,
      seed: 4,
      rl: { form: 'grpo', maxGroups: 2, candidatesPerGroup: 16 },
    });
    files = await trainer.exportPolicy({
      policyVersion: '0-test',
      codebookVersions: { product_card: 1, live_stream: 1 },
      beamWidths: [8, 32],
    });
    threads = await openSearchThreads(files, { threads: 2, onFailure: (error) => failures.push(error) });
  });
  after(async () => {
    await threads.close();
    await trainer.close();
    assert.deepEqual(failures, []);
  });

  const clickOn = (seed: number) => {
    const { c1, c2, c3 } = unpackSid([...SIDS][seed % SIDS.size]!);
    const sid = { scenario: 'product_card', codebookVersion: 1, c1, c2, c3 };
    const history = {
      exposures: [],
      clicks: [{ itemId: 'a', eventTimeMs: 900_000 - seed, category: '' }],
      buys: [],
    };
    return encodeRequest(
      threads.manifest,
      LAYOUT,
      { scenario: 'product_card', requestTimeMs: 1_000_000, history },
      () => sid,
    );
  };
  const job = (seed: number, more: Partial<SearchJob> = {}): SearchJob => ({
    kind: 'beam',
    request: clickOn(seed),
    trie,
    exclusion: NO_EXCLUSION,
    beamWidth: 40,
    normalizer: 'codes',
    seed,
    ...more,
  });

  test('answers what the calling thread would answer, for all kinds, many at once', async () => {
    const runtime = await loadPolicy(files);
    const weights = weighTrie(
      trie,
      Float64Array.from(trie.packed, (_, leaf) => 1 + (leaf % 7)),
    );
    const kinds = ['beam', 'sample', 'unconstrained'] as const;
    const jobs = Array.from({ length: 30 }, (_, i) =>
      job(i, {
        kind: kinds[i % 3]!,
        beamWidth: 1 + ((7 * i) % 60),
        normalizer: (['codes', 'trie', weights] as const)[Math.floor(i / 3) % 3]!,
      }),
    );
    const found = await Promise.all(jobs.map((j) => threads.search(j)));
    for (const [i, j] of jobs.entries()) assert.deepEqual(found[i], await runSearch(runtime, j, () => {}));
    await runtime.close();
  });

  test('at full width it is the exact top of the policy over all SIDs, scored one by one', async () => {
    const runtime = await loadPolicy(files);
    const { size, packed, scores } = (await threads.search(job(3, { beamWidth: 12 * 10 * 14 }))).found;
    assert.equal(size, SIDS.size);
    const context = await runtime.encode(clickOn(3));
    const exact = new Map<number, number>();
    for (const sid of SIDS) {
      const { c1, c2, c3 } = unpackSid(sid);
      const p1 = await runtime.decode(context, 0, new Int32Array(0), 1);
      const p2 = await runtime.decode(context, 1, Int32Array.of(c1), 1);
      const p3 = await runtime.decode(context, 2, Int32Array.of(c1, c2), 1);
      exact.set(sid, p1[c1]! + p2[c2]! + p3[c3]!);
    }
    for (const [i, sid] of packed.entries()) {
      assert.ok(Math.abs(exact.get(sid)! - scores[i]!) < 1e-4);
      if (i > 0) assert.ok(exact.get(packed[i - 1]!)! >= exact.get(sid)! - 1e-4);
    }
    await runtime.close();
  });

  test('at lag 0 the trainer computes the log-probabilities of a rollout: |log rho| below 1e-3', async () => {
    const groups = await Promise.all(
      [1, 2].map(async (seed) => {
        const { size, packed, scores } = (await threads.search(job(seed, { beamWidth: 16 }))).found;
        return {
          request: clickOn(seed),
          candidates: Array.from({ length: size }, (_, i) => {
            const { c1, c2, c3 } = unpackSid(packed[i]!);
            return { codes: [c1, c2, c3] as const, refLogProb: scores[i]!, advantage: i % 2 ? 1 : -1 };
          }),
        };
      }),
    );
    const request = clickOn(9);
    const { c1, c2, c3 } = unpackSid(trie.packed[0]!);
    const item = {
      scenario: 'product_card',
      hashes: new Int32Array(7).fill(-1),
      codes: new Int32Array(15).fill(-1),
    };
    const target = { scenario: 'product_card', c1, c2, c3 };
    const { rl } = await trainer.step({ samples: [{ request, target, item, itemId: 'x' }], groups });
    assert.equal(rl!.candidates, 32);
    assert.ok(rl!.maxAbsLogRatio < 1e-3, `|log rho| ${rl!.maxAbsLogRatio}`);
  });

  test('a cancelled search rejects with its reason and the threads go on', async () => {
    const timer = new AbortController();
    const busy = [threads.search(job(1)), threads.search(job(2)), threads.search(job(3), timer.signal)];
    timer.abort(new Error('too late'));
    const results = await Promise.allSettled(busy);
    assert.deepEqual(
      results.map((r) => r.status),
      ['fulfilled', 'fulfilled', 'rejected'],
    );
    assert.match(String((results[2] as PromiseRejectedResult).reason), /too late/);
    await assert.rejects(threads.search(job(4, { beamWidth: 0 })), /beamWidth must be a positive integer/);
    assert.equal((await threads.search(job(5))).found.size, 40);
  });

  test('files that are no policy are refused by name; a closed policy says so', async () => {
    const broken = new Map(files).set('context.onnx', files.get('context.onnx')!.subarray(0, 900));
    await assert.rejects(
      openSearchThreads(broken, { threads: 2, onFailure: (error) => failures.push(error) }),
      (error) => error instanceof PublishedModelError && /context.onnx/.test(error.message),
    );
    const closed = await openSearchThreads(files, { threads: 1, onFailure: (error) => failures.push(error) });
    const last = closed.search(job(1));
    await last;
    await closed.close();
    await assert.rejects(closed.search(job(1)), /was closed/);
  });
});
