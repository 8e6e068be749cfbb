/**
 * Candidates a second: the bare ranker (hidden layers 512 and 256), then whole reward batches from rollouts of 768
 * candidates with features and advantages; beside Python onnxruntime on the same ranker file, which builds no features.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Item, Rollout } from '@onemall/contracts';
import { NUM_DENSE, NUM_IDS } from '@onemall/features';
import { createRankerTrainer, loadRanker } from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import { joinRows } from '../services/reward-scorer/src/stages/join-rows.ts';
import { rankerRows, scoreGroup } from '../services/reward-scorer/src/stages/score-candidates.ts';
import { ItemFacts } from '../services/reward-scorer/src/state/item-facts.ts';
import { load, measure, versions } from './report/machine.ts';
import { type Benchmark, median } from './report/result.ts';
import { rolloutToDurable } from './reward-scoring/durable.ts';

const CANDIDATES = 768;
const ITEMS = 50_000;
const EVENTS = 50;
const ROLLOUTS = 32;
const ROUNDS = 5;
const SECONDS = 2;
/** Rollouts of 768 candidates at the retriever's default budget, through a broker. */
const DURABLE = { perS: 2, seconds: 30 };
const NOW_MS = 1_700_000_000_000;
const MIN_BARE = 1;
const MIN_WHOLE = 0.7;
/** The peer's shape of benchmarks.md: about 256 inputs, 512, 256, three outputs. */
const PRESET = {
  name: 'bench',
  idDim: 24,
  idRows: 16_384,
  hidden: [512, 256],
  batchSize: CANDIDATES,
  learningRate: 1e-3,
} as const;

interface Rate {
  rowsPerS: number;
  rowsPerCpuS: number;
}

/** Rows by wall and CPU time while `work`, which does so many rows, is repeated. */
async function rateOf(rows: number, work: (n: number) => Promise<unknown>): Promise<Rate> {
  for (let n = 0; n < 5; n++) await work(n);
  let done = 0;
  const end = performance.now() + 1000 * SECONDS;
  const { seconds, cpuSeconds } = await measure(async () => {
    while (performance.now() < end) await work(done++);
  });
  return { rowsPerS: (done * rows) / seconds, rowsPerCpuS: (done * rows) / cpuSeconds };
}

const itemOf = (n: number): Item => ({
  itemId: `item-${n}`,
  scenario: 'product_card',
  validFromMs: NOW_MS - 86_400_000,
  title: '',
  category: `category-${n % 40}`,
  tags: [`tag-${n % 11}`, `tag-${n % 7}`],
  priceCents: 100 + (n % 9000),
  sellerId: `seller-${n % 500}`,
  productId: null,
  contentVideo: false,
  embedding: null,
});

function rolloutOf(n: number, random: SeededRandom): Rollout {
  const events = (count: number) =>
    Array.from({ length: count }, (_, i) => {
      const { itemId, category } = itemOf(random.int(ITEMS));
      return { itemId, category, eventTimeMs: NOW_MS - 60_000 * (i + 1) };
    });
  return {
    requestId: `request-${n}`,
    userId: 'u',
    scenario: 'product_card',
    requestTimeMs: NOW_MS,
    policyVersion: '1-policy',
    codebookVersion: 1,
    history: { exposures: events(EVENTS), clicks: events(EVENTS), buys: events(EVENTS) },
    candidates: Array.from({ length: CANDIDATES }, (_, rank) => ({
      c1: 1,
      c2: 1,
      c3: rank,
      tokenLogProbs: [-1, -1, -rank],
      itemId: `item-${random.int(ITEMS)}`,
    })),
    createdMs: NOW_MS,
  };
}

interface Peer extends Rate {
  onnxruntime: string;
}
function peer(file: string, rows: number): Peer | null {
  const script = new URL('./reward-scoring/peer.py', import.meta.url).pathname;
  const args = [script, file, rows, NUM_DENSE, NUM_IDS, SECONDS, 1].map(String);
  const { status, stdout } = spawnSync('python3', args, { encoding: 'utf8' });
  return status === 0 ? (JSON.parse(stdout) as Peer) : null;
}

const benchmark: Benchmark = async (print) => {
  const trainer = await createRankerTrainer({ preset: PRESET, scenarios: ['product_card'], seed: 1 });
  const files = await trainer.exportRanker({ rankerVersion: '1-bench', egpmScale: { product_card: 500 } });
  await trainer.close();
  const ranker = await loadRanker(files);
  // the peer takes the graph that our own runs take, too
  const rows = ranker.manifest.wideRows!;
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-bench-ranker-'));
  const file = path.join(folder, 'ranker.onnx');
  writeFileSync(file, files.get(ranker.manifest.files['ranker-wide']!)!);

  const random = new SeededRandom(1);
  const facts = new ItemFacts();
  for (let n = 0; n < ITEMS; n++) facts.putItem(`item-${n}`, itemOf(n), 0);
  const rollouts = Array.from({ length: ROLLOUTS }, (_, n) => rolloutOf(n, random));
  const dense = Float32Array.from({ length: CANDIDATES * NUM_DENSE }, () => random.next());
  const ids = Int32Array.from({ length: CANDIDATES * NUM_IDS }, () => random.int(1 << 30));
  const options = { weights: { alpha: 1, beta: 30, gamma: 1 }, maxAdvantage: 5, createdMs: NOW_MS };
  let scored = 0;
  const whole = async (n: number): Promise<void> => {
    const group = rankerRows(rollouts[n % ROLLOUTS]!, (itemId, timeMs) => facts.asOf(itemId, timeMs));
    const joined = joinRows([group]);
    const scores = await ranker.score(joined.dense, joined.ids, joined.numRows);
    const result = scoreGroup(group, scores, 0, ranker.manifest, options);
    if ('batch' in result) scored += result.batch.candidates.length;
  };
  const rounds: { bare: Rate; whole: Rate; features: Rate; peer: Peer | null; load: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    rounds.push({
      bare: await rateOf(CANDIDATES, () => ranker.score(dense, ids, CANDIDATES)),
      whole: await rateOf(CANDIDATES, whole),
      features: await rateOf(CANDIDATES, async (n) =>
        rankerRows(rollouts[n % ROLLOUTS]!, (itemId, timeMs) => facts.asOf(itemId, timeMs)),
      ),
      peer: peer(file, rows),
      load: load(),
    });
    const { bare, whole: batches } = rounds.at(-1)!;
    print(
      `bare ${Math.round(bare.rowsPerS)} rows/s, whole ${Math.round(batches.rowsPerS)} candidates/s, peer ${Math.round(rounds.at(-1)!.peer?.rowsPerS ?? 0)} rows/s`,
    );
  }
  await ranker.close();
  rmSync(folder, { recursive: true });
  const durable = await rolloutToDurable(
    files,
    Array.from({ length: ITEMS }, (_, n) => itemOf(n)),
    (n) => rollouts[n % ROLLOUTS]!,
    DURABLE,
  );
  print(`rollout to durable batch at ${durable.perS}/s: p50 ${durable.p50Ms} ms, p99 ${durable.p99Ms} ms`);
  const middle = (pick: (round: (typeof rounds)[0]) => Rate): Rate => ({
    rowsPerS: Math.round(median(rounds.map((r) => pick(r).rowsPerS))),
    rowsPerCpuS: Math.round(median(rounds.map((r) => pick(r).rowsPerCpuS))),
  });
  const withPeer = rounds.every((r) => r.peer !== null);
  const to = (pick: (round: (typeof rounds)[0]) => Rate): number =>
    median(rounds.map((r) => pick(r).rowsPerCpuS / r.peer!.rowsPerCpuS));
  const ratios = withPeer ? { bare: to((r) => r.bare), whole: to((r) => r.whole) } : null;
  return {
    name: 'reward-scoring',
    versions: { ...versions(), ...(withPeer && { 'onnxruntime of the peer': rounds[0]!.peer!.onnxruntime }) },
    ours: {
      'bare ranker': middle((r) => r.bare),
      'rollout to reward batch': middle((r) => r.whole),
      'features alone': middle((r) => r.features),
      'rollout to durable reward batch': durable,
      'rows in one run': rows,
      'candidates scored': scored,
      load: rounds.map((r) => r.load),
    },
    peer: withPeer ? { 'bare ranker': middle((r) => r.peer!) } : null,
    peerNote: 'python3 with numpy and onnxruntime is not here',
    ratios: ratios
      ? { 'bare ranker, rows a CPU second': ratios.bare, 'with features, to the bare peer': ratios.whole }
      : {},
    bars: ratios
      ? [
          { name: 'bare ranker to the peer', value: ratios.bare, bar: MIN_BARE, ok: ratios.bare >= MIN_BARE },
          {
            name: 'with features to the peer',
            value: ratios.whole,
            bar: MIN_WHOLE,
            ok: ratios.whole >= MIN_WHOLE,
          },
        ]
      : [],
  };
};
export default benchmark;
