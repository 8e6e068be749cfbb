/**
 * The same model in PyTorch: train.py in the folder pytorch-trainer of ONEMALL_PEERS (default: ../shared/peers beside the
 * checkout). On AMD processors its math library needs a shim that makes it take the fast path; that is the honest bar.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

export interface PeerRun {
  torch: string;
  medianStepMs: number;
  cpuStepMs: number;
  samplesPerSec: number;
  peakRssMB: number;
  losses: number[];
}
export interface PytorchPeer {
  run(options: { threads: number; steps: number; shim: boolean }): PeerRun;
}

/** null with the reason where it cannot run. @param folder for its files */
export function findPytorch(
  folder: string,
  writeFiles: (data: string) => void,
): { peer: PytorchPeer | null; note: string } {
  const root = path.resolve(import.meta.dirname, '../..');
  const peers = process.env.ONEMALL_PEERS ?? path.resolve(root, '../shared/peers');
  const script = path.join(peers, 'pytorch-trainer', 'train.py');
  if (!existsSync(script))
    return { peer: null, note: `no ${script}; set ONEMALL_PEERS to the folder of the peers` };
  if (spawnSync('python3', ['-c', 'import torch, numpy'], { stdio: 'ignore' }).status !== 0)
    return { peer: null, note: 'python3 has no torch and numpy' };
  const shim = path.join(folder, 'fakeintel.so');
  const source = path.join(peers, 'pytorch-trainer', 'fakeintel.c');
  const compiled =
    spawnSync('gcc', ['-shared', '-fPIC', '-o', shim, source], { stdio: 'ignore' }).status === 0;
  const data = path.join(folder, 'data');
  writeFiles(data);
  const run: PytorchPeer['run'] = (options) => {
    if (options.shim && !compiled) throw new Error('gcc could not compile the shim');
    const args = [script, '--data', data, '--threads', options.threads, '--steps', options.steps].map(String);
    const env = { ...process.env, OMP_NUM_THREADS: String(options.threads) };
    const output = execFileSync('python3', args, {
      env: options.shim ? { ...env, LD_PRELOAD: shim } : env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      maxBuffer: 1 << 24,
    });
    const losses = [...output.matchAll(/^step [0-2] loss ([0-9.]+)/gm)].map((match) => Number(match[1]));
    const last = output.trim().split('\n').at(-1)!;
    return { ...(JSON.parse(last) as Omit<PeerRun, 'losses'>), losses };
  };
  return { peer: { run }, note: compiled ? '' : 'without the shim: there is no gcc' };
}
