/**
 * Whole retrievals (features, user context, beam, items) on two threads beside Python onnxruntime, which decodes the same
 * exported policy with a beam in numpy in two processes; then tries of up to a million SIDs.
 */
import { spawn } from 'node:child_process';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { codesForCatalogue } from '@onemall/quantization';
import { StageMeter, systemClock } from '@onemall/service-kit';
import pino from 'pino';
import { AdmissionGate } from '../services/retriever/src/adapters/admission-gate.ts';
import { serveHttp } from '../services/retriever/src/adapters/http-api.ts';
import { openSearchThreads } from '../services/retriever/src/adapters/search-threads.ts';
import { type LoadedPolicy, loadedPolicy, Retrieval } from '../services/retriever/src/retrieval.ts';
import { Popularity } from '../services/retriever/src/state/popularity.ts';
import type { SidCatalogue } from '../services/retriever/src/state/sid-catalogue.ts';
import { load, measure, versions } from './report/machine.ts';
import { type Benchmark, type BenchmarkResult, median } from './report/result.ts';
import * as scene from './retrieval/scene.ts';

const NUM_SIDS = 100_000;
const BEAMS = [50, 500, 768];
const TRIES = [10_000, 100_000, 1_000_000];
const ROUNDS = 3;
const SECONDS = 3;
const THREADS = 2;
const K = 50;
const MAX_P99_MS = 100;
const MIN_RATIO = 2;

type Asked = ReturnType<typeof scene.requests>;
interface Span {
  requestsPerS: number;
  cpuMs: number;
  p50Ms: number;
  p99Ms: number;
}
interface PeerSpan extends Span {
  rssMiB: number;
  onnxruntime: string;
  numpy: string;
  top: number[];
  scores: number[];
}

const at = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
function spanOf(latenciesMs: number[], seconds: number, cpuSeconds: number): Span {
  const sorted = latenciesMs.toSorted((a, b) => a - b);
  return {
    requestsPerS: sorted.length / seconds,
    cpuMs: (1000 * cpuSeconds) / sorted.length,
    p50Ms: at(sorted, 0.5),
    p99Ms: at(sorted, 0.99),
  };
}

/** So many clients, each asking again as soon as it has its answer. */
async function askFor(seconds: number, ask: (n: number) => Promise<unknown>): Promise<Span> {
  for (let n = 0; n < 10; n++) await ask(n);
  const latenciesMs: number[] = [];
  const end = performance.now() + 1000 * seconds;
  let asked = 0;
  const client = async (): Promise<void> => {
    while (performance.now() < end) {
      const begin = performance.now();
      await ask(asked++);
      latenciesMs.push(performance.now() - begin);
    }
  };
  const spent = await measure(() => Promise.all(Array.from({ length: THREADS }, client)));
  return spanOf(latenciesMs, spent.seconds, spent.cpuSeconds);
}

/** null where Python, numpy or onnxruntime is missing. */
function peer(folder: string, mode: 'plain' | 'cached', beam: number): Promise<PeerSpan | null> {
  const script = new URL('./retrieval/peer.py', import.meta.url).pathname;
  const one = () =>
    new Promise<string | null>((resolve) => {
      const args = [script, folder, mode, String(beam), String(SECONDS)];
      const child = spawn('python3', args, { stdio: ['ignore', 'pipe', 'ignore'] });
      let out = '';
      child.stdout.on('data', (data) => {
        out += data;
      });
      child.on('error', () => resolve(null));
      child.on('exit', (code) => resolve(code === 0 ? out : null));
    });
  return Promise.all(Array.from({ length: THREADS }, one)).then((outs) => {
    if (outs.some((out) => out === null)) return null;
    const all = outs.map((out) => JSON.parse(out!));
    const sum = (key: string): number => all.reduce((total, each) => total + each[key], 0);
    const latencies = all.flatMap((each) => each.latenciesMs as number[]);
    return {
      ...spanOf(latencies, sum('seconds') / THREADS, sum('cpuSeconds')),
      ...{ rssMiB: sum('rssMiB'), onnxruntime: all[0].onnxruntime, numpy: all[0].numpy },
      ...{ top: all[0].top, scores: all[0].scores },
    };
  });
}

const middle = <S extends Span>(spans: readonly S[]): Span => ({
  requestsPerS: median(spans.map((s) => s.requestsPerS)),
  cpuMs: median(spans.map((s) => s.cpuMs)),
  p50Ms: median(spans.map((s) => s.p50Ms)),
  p99Ms: median(spans.map((s) => s.p99Ms)),
});
const show = ({ requestsPerS, cpuMs, p50Ms, p99Ms }: Span): string =>
  `${requestsPerS.toFixed(1)}/s, ${cpuMs.toFixed(1)} ms CPU, p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`;

async function openRetrieval(numCodes: readonly [number, number, number], catalogue: SidCatalogue) {
  const files = await scene.policyFiles(numCodes);
  const search = await openSearchThreads(files, {
    threads: THREADS,
    onFailure: (error) => {
      throw error;
    },
  });
  const policy = loadedPolicy(
    {
      model: 'RETRIEVER',
      policyVersion: search.manifest.policyVersion,
      uri: '',
      sha256: '',
      step: 0,
      codebookVersions: search.manifest.codebookVersions,
      metrics: {},
      createdMs: 0,
    },
    search,
  );
  const retrieval = new Retrieval({
    catalogue,
    popularity: new Popularity(1000),
    itemOrder: 'popularity',
    denseWeight: 0,
    nowMs: () => scene.NOW_MS,
  });
  return { files, policy, retrieval, close: () => search.close() };
}

const MIB = 1 << 20;
const rssMiB = (): number => Math.round(process.memoryUsage.rss() / MIB);

/** Tries by size, with one policy of the largest codebooks. */
async function tries(print: (line: string) => void) {
  const numCodes = codesForCatalogue(TRIES.at(-1)!, 'kmeans');
  const rows: Record<string, Record<string, number>> = {};
  const opened = await openRetrieval(numCodes, scene.fillCatalogue(1, numCodes));
  for (const size of TRIES) {
    globalThis.gc?.();
    const before = rssMiB();
    const catalogue = scene.fillCatalogue(size, numCodes);
    const built = await measure(async () => catalogue.trie(scene.SCENARIO, 1, numCodes, 0));
    // one room or item more: what a change costs the main thread
    const sid = { scenario: scene.SCENARIO, codebookVersion: 1, c1: 0, c2: 0, c3: 0 };
    scene.putItem(catalogue, 'new');
    catalogue.putItemSid('new:1', { itemId: 'new', sid, validFromMs: 0, reason: 'NEW_ITEM', createdMs: 0 });
    const merged = await measure(async () => catalogue.trie(scene.SCENARIO, 1, numCodes, 1));
    const trie = catalogue.trie(scene.SCENARIO, 1, numCodes, 1);
    const bytes = [trie.codes1, trie.starts2, trie.codes2, trie.starts3, trie.codes3, trie.packed];
    const retrieval = new Retrieval({
      catalogue,
      popularity: new Popularity(1000),
      itemOrder: 'popularity',
      denseWeight: 0,
      nowMs: () => 1,
    });
    const asked = scene.requests(size);
    const span = await askFor(SECONDS, (n) =>
      retrieval.retrieve(opened.policy, asked[n % asked.length]!, { k: K, beamWidth: 500 }),
    );
    rows[`${size} SIDs`] = {
      ...span,
      trieMiB: bytes.reduce((sum, array) => sum + array.byteLength, 0) / MIB,
      catalogueAndTrieMiB: rssMiB() - before,
      firstBuildMs: 1000 * built.seconds,
      rebuildAfterChangeMs: 1000 * merged.seconds,
    };
    print(`${size} SIDs, codes ${numCodes}, beam 500: ${show(span)}`);
  }
  await opened.close();
  return rows;
}

async function overHttp(retrieval: Retrieval, policy: LoadedPolicy, asked: Asked): Promise<Span> {
  const http = await serveHttp({
    host: '127.0.0.1',
    port: 0,
    limits: { scenarios: [scene.SCENARIO], maxK: 1000, maxBeam: 1000, defaultBeam: 500, maxHistory: 1000 },
    maxBodyBytes: MIB,
    timeoutMs: 60_000,
    gate: new AdmissionGate({ concurrency: THREADS, queueLength: 64 }),
    allowedClockSkewMs: 0,
    retrieval,
    acquirePolicy: () => ({ model: policy, release: () => {} }),
    clock: systemClock,
    log: pino({ level: 'silent' }),
    meter: new StageMeter('bench'),
  });
  const bodies = asked.map((request) => JSON.stringify({ ...request, k: K }));
  const span = await askFor(SECONDS, async (n) => {
    const response = await fetch(`${http.url}/retrieve`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: bodies[n % bodies.length]!,
    });
    if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
    await response.json();
  });
  await http.close();
  return span;
}

/** The greatest difference of the best 50 scores, and how many of the SIDs are the same. */
async function compare(
  opened: Awaited<ReturnType<typeof openRetrieval>>,
  asked: Asked,
  catalogue: SidCatalogue,
  found: PeerSpan,
) {
  const { found: mine } = await opened.retrieval.searchSids(opened.policy, asked[0]!, { beamWidth: 500 });
  const { packed } = catalogue.trie(scene.SCENARIO, 1, codesForCatalogue(NUM_SIDS, 'fsq'), scene.NOW_MS);
  const leaves = new Set(scene.leavesOf(mine.packed.subarray(0, 50), packed));
  return {
    sameSids: found.top.filter((leaf) => leaves.has(leaf)).length / 50,
    largestScoreDifference: Math.max(...found.scores.map((s, i) => Math.abs(s - mine.scores[i]!))),
  };
}

const benchmark: Benchmark = async (print) => {
  const numCodes = codesForCatalogue(NUM_SIDS, 'fsq');
  const catalogue = scene.fillCatalogue(NUM_SIDS, numCodes);
  const asked = scene.requests(NUM_SIDS);
  const before = rssMiB();
  const opened = await openRetrieval(numCodes, catalogue);
  const threadsMiB = rssMiB() - before;
  const { folder, remove } = await scene.writeScene(opened.files, catalogue, numCodes, asked);
  const ours: Record<string, Span> = {};
  const plain: Record<string, Span> = {};
  const cached: Record<string, Span> = {};
  const ratios: Record<string, number> = {};
  const loads: number[] = [];
  let anyPeer: PeerSpan | null = null;
  let same: Awaited<ReturnType<typeof compare>> | null = null;
  const delay = monitorEventLoopDelay({ resolution: 5 });
  for (const beam of BEAMS) {
    const rounds: { mine: Span; plain: PeerSpan | null; cached: PeerSpan | null }[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      delay.enable();
      const mine = await askFor(SECONDS, (n) =>
        opened.retrieval.retrieve(opened.policy, asked[n % asked.length]!, { k: K, beamWidth: beam }),
      );
      delay.disable();
      rounds.push({
        mine,
        plain: await peer(folder, 'plain', beam),
        cached: await peer(folder, 'cached', beam),
      });
      loads.push(load());
      print(`beam ${beam}: ${show(mine)}`);
    }
    ours[`beam ${beam}`] = middle(rounds.map((r) => r.mine));
    for (const [name, into] of [
      ['plain', plain],
      ['cached', cached],
    ] as const) {
      const spans = rounds.flatMap((r) => r[name] ?? []);
      if (spans.length < ROUNDS) continue;
      anyPeer = spans[0]!;
      into[`beam ${beam}`] = middle(spans);
      print(`  Python onnxruntime, ${name} graphs: ${show(middle(spans))}`);
      ratios[`beam ${beam}: requests/s, ours to Python with ${name} graphs`] = median(
        rounds.map((r) => r.mine.requestsPerS / r[name]!.requestsPerS),
      );
      ratios[`beam ${beam}: CPU of a request, Python with ${name} graphs to ours`] = median(
        rounds.map((r) => r[name]!.cpuMs / r.mine.cpuMs),
      );
    }
    const last = rounds.at(-1)!.cached;
    if (beam === 500 && last) same = await compare(opened, asked, catalogue, last);
  }
  const http = await overHttp(opened.retrieval, opened.policy, asked);
  print(`beam 500 over HTTP: ${show(http)}`);
  await opened.close();
  await remove();
  const trieRows = await tries(print);
  const p99Ms = Math.max(ours['beam 500']!.p99Ms, http.p99Ms);
  const result: BenchmarkResult = {
    name: 'retrieval',
    versions: {
      ...versions(),
      ...(anyPeer && { 'onnxruntime of the peer': anyPeer.onnxruntime, numpy: anyPeer.numpy }),
    },
    ours: {
      ...ours,
      'beam 500 over HTTP': http,
      'policy on 2 threads, MiB': threadsMiB,
      'main thread held up, p99 ms': delay.percentile(99) / 1e6,
      load: loads,
      ...(same && { 'as the peer': same }),
      ...trieRows,
    },
    peer: anyPeer && { 'plain graphs': plain, 'cached graphs': cached, 'two processes, MiB': anyPeer.rssMiB },
    peerNote: 'python3 with numpy and onnxruntime is not here',
    ratios,
    bars: [
      { name: 'p99 at beam 500, ms', value: p99Ms, bar: MAX_P99_MS, ok: p99Ms < MAX_P99_MS },
      // The peer may run the graphs that our own work on decoding made, or those that a plain export gives.
      ...(['plain', 'cached'] as const).flatMap((name) => {
        const ratio = ratios[`beam 500: requests/s, ours to Python with ${name} graphs`];
        const bar = { name: `requests/s to Python with ${name} graphs at beam 500`, bar: MIN_RATIO };
        return ratio === undefined ? [] : [{ ...bar, value: ratio, ok: ratio >= MIN_RATIO }];
      }),
    ],
  };
  return result;
};
export default benchmark;
