/**
 * The sample-assembler's state: memory of one instance with millions of open exposures and histories of a million users,
 * its snapshot and how soon a fresh process goes on from it (both without Kafka); then, on a real broker, how fast the log
 * alone is replayed, how soon all partitions are live with snapshots, and the memory of the service with all of it.
 * ONEMALL_BENCH_SHARE (0.3) of the whole load; with 1 it takes ten minutes, and the bars of memory and of snapshots count.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startTestStack } from '@onemall/testkit';
import { load, versions } from './report/machine.ts';
import type { Benchmark } from './report/result.ts';
import { planOf } from './sample-assembly/drain.ts';
import { measureLive } from './sample-assembly/live-memory.ts';
import { measureReplay } from './sample-assembly/replay.ts';

const SHARE = Number(process.env.ONEMALL_BENCH_SHARE ?? 0.3);
const USERS = Math.round(1_000_000 * SHARE);
const EVENTS_PER_USER = 5;
const OPEN_EXPOSURES = Math.round(5_000_000 * SHARE);
const REPLAYED_EXPOSURES = Math.round(900_000 * SHARE);
const SCRIPT = path.join(import.meta.dirname, 'sample-assembly/state-run.ts');

const benchmark: Benchmark = async (print) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-bench-'));
  try {
    const filled = stateRun(folder, 'fill', USERS, EVENTS_PER_USER, OPEN_EXPOSURES);
    print(`state: ${JSON.stringify(filled)}`);
    const restored = stateRun(folder, 'restore');
    print(`fresh process with its snapshots: ${JSON.stringify(restored)}`);
    rmSync(path.join(folder, 'snapshots'), { recursive: true });
    const stack = await startTestStack();
    try {
      const histories = await measureReplay(stack, planOf(REPLAYED_EXPOSURES), 50, folder);
      print(`started anew, histories of 50: ${JSON.stringify(histories)}`);
      const whole = { users: USERS, eventsPerUser: EVENTS_PER_USER, openExposures: OPEN_EXPOSURES };
      const service = await measureLive(stack, whole, folder);
      print(`the service with all of it: ${JSON.stringify(service)}`);
      const most = (name: string, value: number, bar: number) => ({ name, value, bar, ok: value <= bar });
      const least = (name: string, value: number, bar: number) => ({ name, value, bar, ok: value >= bar });
      return {
        name: 'sample-assembly-state',
        versions: { ...versions(), share: String(SHARE), load: String(load()) },
        ours: { filled, restored, histories, service },
        peer: null,
        peerNote: 'none: Kafka Streams keeps changelogs, whose restoring is not the same work',
        ratios: {},
        bars: [
          // Bars of the whole load: a part of it says little about them.
          ...(SHARE < 1
            ? []
            : [
                most('resident MB with everything', megabytes(filled.rssMiB!), 2_500),
                most(
                  'resident MB at the peak, while a snapshot is written',
                  megabytes(filled.peakMiB!),
                  2_500,
                ),
                most('seconds from snapshots to ready, all of it', restored.readySeconds!, 10),
                most('resident MB of the service at its peak, all of it', megabytes(service.peakMiB), 2_500),
                most('seconds from its process to live with snapshots, all of it', service.again.readyS, 10),
              ]),
          least(
            'records/s replayed from the log alone, histories of 50',
            histories.byLog.replayedPerS,
            300_000,
          ),
          most('seconds from the process to live with snapshots', histories.withSnapshot.readyS, 10),
        ],
      };
    } finally {
      await stack.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

const megabytes = (mib: number): number => Math.round((mib * 2 ** 20) / 1e6);

/** In a process of its own, so that its memory is its own. */
function stateRun(folder: string, mode: 'fill' | 'restore', ...numbers: number[]): Record<string, number> {
  const args = [SCRIPT, mode, folder, ...numbers.map(String)];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`state-run.ts ${mode} failed: ${stderr.slice(-800)}`);
  return JSON.parse(readFileSync(path.join(folder, `${mode}.json`), 'utf8')) as Record<string, number>;
}

export default benchmark;
