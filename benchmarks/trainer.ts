/**
 * Training steps on the CPU: preset proof83 (8.3 M parameters, batch 256) beside PyTorch with the same weights and batches, and
 * preset small. Ours and the peer's processes alternate. On a busy machine only the CPU seconds at one thread compare.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { load, versions } from './report/machine.ts';
import { type Bar, type Benchmark, median } from './report/result.ts';
import { findPytorch, type PeerRun } from './trainer/pytorch-peer.ts';

const ROUNDS = Number(process.env.ONEMALL_BENCH_ROUNDS ?? 5);
const BATCH = 256;
const STEPS = 14;
const MAX_PEAK_MB = 1_400;

interface OurRun {
  params: number;
  nodes: number;
  losses: number[];
  medianStepMs: number;
  cpuStepMs: number;
  samplesPerSec: number;
  peakRssMB: number;
}

const child = <R>(script: string, args: readonly (string | number)[]): R => {
  const file = path.join(import.meta.dirname, script);
  const output = execFileSync(process.execPath, [file, ...args.map(String)], { encoding: 'utf8' });
  return JSON.parse(output.trim().split('\n').at(-1)!) as R;
};
const proof83 = (threads: number): OurRun => child('trainer/proof83-run.ts', [threads, STEPS]);

const benchmark: Benchmark = async (print) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-trainer-'));
  try {
    const { peer, note } = findPytorch(folder, (data) => {
      execFileSync(process.execPath, [
        path.join(import.meta.dirname, 'trainer/proof83-run.ts'),
        '1',
        '1',
        data,
      ]);
    });
    const shim = note === '';
    const runs: Record<'ours1' | 'ours2', OurRun[]> = { ours1: [], ours2: [] };
    const peers: Record<'peer1' | 'peer2' | 'eager2', PeerRun[]> = { peer1: [], peer2: [], eager2: [] };
    for (let round = 0; round < ROUNDS; round++) {
      runs.ours2.push(proof83(2));
      if (peer) peers.peer2.push(peer.run({ threads: 2, steps: STEPS, shim }));
      runs.ours1.push(proof83(1));
      if (peer) peers.peer1.push(peer.run({ threads: 1, steps: STEPS, shim }));
      if (peer && shim && round % 2 === 0)
        peers.eager2.push(peer.run({ threads: 2, steps: STEPS, shim: false }));
      const figures = [...Object.entries(runs), ...Object.entries(peers)].flatMap(([name, list]) => {
        const run = list.at(-1);
        return run ? [`${name} ${Math.round(run.samplesPerSec)}/s ${Math.round(run.cpuStepMs)} ms CPU`] : [];
      });
      print(`round ${round + 1}: ${figures.join(', ')}, load ${load()}`);
    }
    const small = child<Record<string, unknown>>('../packages/learning/bench/step-time.ts', [
      'small',
      256,
      60,
    ]);
    const of = (list: readonly (OurRun | PeerRun)[], field: 'samplesPerSec' | 'cpuStepMs' | 'peakRssMB') =>
      median(list.map((run) => run[field]));
    const ours = {
      'samples/s, 2 threads': of(runs.ours2, 'samplesPerSec'),
      'samples/s, 1 thread': of(runs.ours1, 'samplesPerSec'),
      'CPU ms per sample, 2 threads': of(runs.ours2, 'cpuStepMs') / BATCH,
      'CPU ms per sample, 1 thread': of(runs.ours1, 'cpuStepMs') / BATCH,
      'peak MB, 2 threads': Math.max(...runs.ours2.map((run) => run.peakRssMB)),
      'first losses': runs.ours2[0]!.losses,
      parameters: runs.ours2[0]!.params,
      nodes: runs.ours2[0]!.nodes,
      'preset small, 1 thread': small,
    };
    const bars: Bar[] = [
      {
        name: 'peak MB (at most)',
        value: ours['peak MB, 2 threads'],
        bar: MAX_PEAK_MB,
        ok: ours['peak MB, 2 threads'] <= MAX_PEAK_MB,
      },
    ];
    if (!peer)
      return { name: 'trainer', versions: versions(), ours, peer: null, peerNote: note, ratios: {}, bars };

    const theirs = {
      name: `PyTorch ${peers.peer2[0]!.torch}, eager${shim ? ' with the MKL shim' : ''}`,
      'samples/s, 2 threads': of(peers.peer2, 'samplesPerSec'),
      'samples/s, 1 thread': of(peers.peer1, 'samplesPerSec'),
      'CPU ms per sample, 2 threads': of(peers.peer2, 'cpuStepMs') / BATCH,
      'CPU ms per sample, 1 thread': of(peers.peer1, 'cpuStepMs') / BATCH,
      'peak MB, 2 threads': Math.max(...peers.peer2.map((run) => run.peakRssMB)),
      'first losses': peers.peer2[0]!.losses,
      ...(peers.eager2.length > 0 && {
        'samples/s, 2 threads, without the shim': of(peers.eager2, 'samplesPerSec'),
      }),
    };
    const ratio = (ourRuns: OurRun[], peerRuns: PeerRun[], field: 'samplesPerSec' | 'cpuStepMs'): number =>
      median(ourRuns.map((run, i) => run[field] / peerRuns[i]![field]));
    const ratios = {
      'samples/s at 2 threads, ours to the peer': ratio(runs.ours2, peers.peer2, 'samplesPerSec'),
      'samples/s at 1 thread': ratio(runs.ours1, peers.peer1, 'samplesPerSec'),
      'samples per CPU second at 1 thread': 1 / ratio(runs.ours1, peers.peer1, 'cpuStepMs'),
    };
    const difference = Math.max(
      ...runs.ours2[0]!.losses.map((loss, i) => Math.abs(loss - peers.peer2[0]!.losses[i]!)),
    );
    const toPeer = ratios['samples/s at 2 threads, ours to the peer'];
    bars.push(
      { name: 'samples/s at 2 threads, times the peer', value: toPeer, bar: 1.2, ok: toPeer >= 1.2 },
      // PyTorch's sums differ in the last bits, and AdamW turns a tiny gradient's sign into a full step.
      { name: 'first losses differ by (at most)', value: difference, bar: 2e-3, ok: difference <= 2e-3 },
    );
    return { name: 'trainer', versions: versions(), ours, peer: theirs, ratios, bars };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
export default benchmark;
