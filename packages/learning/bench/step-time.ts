/**
 * Time of a training step: `node packages/learning/bench/step-time.ts [preset] [codes per level] [steps] [rl]`.
 * Prints wall and CPU time per step; on a busy machine only the CPU time means something.
 */
import type { SidCodes } from '@onemall/features';
import { createRetrievalTrainer, type RetrievalPresetName } from '../src/index.ts';

const [preset = 'small', codes = '256', steps = '40', rl] = process.argv.slice(2);
const scenarios = ['product_card', 'short_video', 'live_stream'];
const k = Number(codes);
const numCodes = Object.fromEntries(scenarios.map((s) => [s, [k, k, k] as [number, number, number]]));
let seed = 1;
const random = (n: number): number => {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((seed / 4_294_967_296) * n);
};
const trainer = await createRetrievalTrainer({
  preset: preset as RetrievalPresetName,
  scenarios,
  numCodes,
  seed: 1,
  ...(rl ? { rl: { form: 'grpo' } } : {}),
});
const request = (index: number) => {
  const h = trainer.historyLength;
  const behaviour = () => ({
    codes: Int32Array.from({ length: h * 3 }, () => index * k + random(k)),
    ages: Int32Array.from({ length: h }, () => random(20)),
    scenarios: new Int32Array(h).fill(index),
  });
  return {
    scenario: scenarios[index]!,
    behaviours: { exposure: behaviour(), click: behaviour(), buy: behaviour() },
  };
};
const batch = () => ({
  samples: Array.from({ length: trainer.batchSize }, () => {
    const index = random(3);
    const scenario = scenarios[index]!;
    const target: SidCodes = { scenario, c1: random(k), c2: random(k), c3: random(k) };
    const hashes = Int32Array.from({ length: 7 }, () => random(1 << 30));
    const item = { scenario, hashes, codes: new Int32Array(15).fill(-1) };
    return { request: request(index), target, item, itemId: String(random(1000)) };
  }),
  groups: rl
    ? [0, 1].map((index) => ({
        request: request(index),
        candidates: Array.from({ length: 16 }, () => ({
          codes: [random(k), random(k), random(k)] as const,
          refLogProb: -3 * Math.log(k),
          advantage: random(3) - 1,
        })),
      }))
    : [],
});
const batches = Array.from({ length: 4 }, batch);
for (let i = 0; i < 4; i++) await trainer.step(batches[i]!);
const cpu = process.cpuUsage();
const wallMs: number[] = [];
for (let i = 0; i < Number(steps); i++) wallMs.push((await trainer.step(batches[i % 4]!)).stepMs);
const { user, system } = process.cpuUsage(cpu);
wallMs.sort((a, b) => a - b);
const cpuMs = (user + system) / 1000 / wallMs.length;
const rounded = (x: number): number => Math.round(x * 10) / 10;
console.log(
  JSON.stringify({
    preset,
    codes: k,
    rl: rl !== undefined,
    batchSize: trainer.batchSize,
    wallMsMedian: rounded(wallMs[wallMs.length >> 1]!),
    wallMsP10: rounded(wallMs[Math.floor(wallMs.length / 10)]!),
    cpuMs: rounded(cpuMs),
    samplesPerCpuSecond: Math.round((trainer.batchSize / cpuMs) * 1000),
    rssMiB: process.memoryUsage().rss >> 20,
    node: process.version,
  }),
);
await trainer.close();
