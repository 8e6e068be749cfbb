/** The same join in Kafka Streams, where its folder, Java and Maven are there. Its own tools load, run and measure it. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { median } from '../report/result.ts';

/** Beside the repository, or beside the folder of its worktrees. */
const FOLDERS = ['../../../shared/peers', '../../../../shared/peers'].map((folder) =>
  path.resolve(import.meta.dirname, folder, 'kafka-streams-join'),
);
const STEP_MS = 300_000;
/** A broker slows the first one down, until Java has compiled it. */
const DRAINS = 5;

export interface PeerFigures extends Record<string, unknown> {
  name: string;
  eventsPerS: number;
  cpuUsPerEvent: number;
  peakMiB: number;
}

/** @returns why not, where it cannot run here */
export function runPeer(exposures: number, print: (line: string) => void): PeerFigures | string {
  const source = FOLDERS.find((folder) => existsSync(folder));
  if (!source) return `there is no ${FOLDERS.join(' or ')}`;
  for (const tool of ['java', 'mvn'])
    if (spawnSync(tool, ['-version'], { stdio: 'ignore' }).status !== 0) return `${tool} is not installed`;
  const home = mkdtempSync(path.join(tmpdir(), 'onemall-peer-'));
  const env = { ...process.env, LOG: 'error' };
  const step = (what: string, command: string, args: string[], cwd: string, more: object = {}): string => {
    print(`peer: ${what}`);
    const options = { cwd, env: { ...env, ...more }, timeout: STEP_MS, encoding: 'utf8' as const };
    const { status, stdout, stderr } = spawnSync(command, args, options);
    if (status !== 0) throw new Error(`The peer's step "${what}" failed: ${stderr.slice(-800)}`);
    return stdout;
  };
  let broker: ChildProcess | undefined;
  try {
    const folder = path.join(home, 'join');
    cpSync(source, folder, { recursive: true });
    step('building', 'mvn', ['-q', '-B', 'package'], folder);
    step('building its broker', 'mvn', ['-q', '-B', 'package'], path.join(folder, 'broker'));
    // Through spawn: what the script leaves running holds its output open.
    broker = spawn(path.join(folder, 'bin/broker.sh'), ['start', path.join(home, 'kafka')], {
      stdio: 'ignore',
    });
    step('waiting for its broker', 'bash', ['-c', waitForPort], folder);
    const java = (...args: string[]): string[] => [path.join(folder, 'bin/java.sh'), ...args];
    const run = (what: string, args: string[], more: object = {}): string =>
      step(what, 'bash', args, folder, more);
    run('creating topics', java('Topics', '--reset', 'all'));
    const bootstrap = ['--bootstrap', '127.0.0.1:29392'];
    run('loading', java('Gen', '--exposures', String(exposures), ...bootstrap), { HEAP: '-Xmx4g' });
    const pid = readFileSync(path.join(home, 'kafka/broker.pid'), 'utf8').trim();
    const state = path.join(home, 'state');
    const join = ['env', 'HEAP=-Xmx1g', ...java('JoinApp', '--state-dir', state)];
    const runs = Array.from({ length: DRAINS }, (_, i) => {
      if (i > 0) run('emptying what it wrote', java('Topics', '--reset', 'outputs'));
      rmSync(state, { recursive: true, force: true });
      const watched = run('draining', java('Watch', '--broker-pid', pid, '--', ...join), {
        HEAP: '-Xmx256m',
      });
      return JSON.parse(watched.trim().split('\n').at(-1)!) as Record<string, number>;
    });
    return {
      name: 'Kafka Streams 4.1, exactly_once_v2, RocksDB, labels only',
      eventsPerS: median(runs.map((r) => r.events_per_s!)),
      cpuUsPerEvent: median(runs.map((r) => (r.cpu_s! * 1e6) / r.inputs!)),
      peakMiB: Math.max(...runs.map((r) => r.peak_rss_mib!)),
      runs,
    };
  } catch (error) {
    return `its run failed: ${(error as Error).message}`;
  } finally {
    if (broker) spawnSync('bash', [path.join(home, 'join/bin/broker.sh'), 'stop', path.join(home, 'kafka')]);
    rmSync(home, { recursive: true, force: true });
  }
}

const waitForPort =
  'for i in $(seq 120); do (exec 3<>/dev/tcp/127.0.0.1/29392) 2>/dev/null && sleep 3 && exit 0; sleep 1; done; exit 1';
