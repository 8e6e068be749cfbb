/** What a child process has used, from /proc: Linux only. */
import { readdirSync, readFileSync } from 'node:fs';

const TICKS_PER_S = 100;

/** CPU seconds, user and system. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S;
}

/** CPU seconds of the threads that run now, summed by their names: MainThread, WorkerThread, V8Worker (collector, compiler), libuv-worker. */
export function cpuSecondsByThread(pid: number): Record<string, number> {
  const seconds: Record<string, number> = {};
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    const end = stat.lastIndexOf(')');
    const name = stat.slice(stat.indexOf('(') + 1, end);
    const fields = stat.slice(end + 2).split(' ');
    seconds[name] = (seconds[name] ?? 0) + (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S;
  }
  return seconds;
}

/** Greatest resident size so far. */
export const peakMiBOf = (pid: number): number => statusMiB(pid, 'VmHWM');
/** Resident now. */
export const residentMiBOf = (pid: number): number => statusMiB(pid, 'VmRSS');

function statusMiB(pid: number, name: string): number {
  const line = new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Math.round(Number(line?.[1] ?? Number.NaN) / 1024);
}

/** Busy CPU seconds of the whole machine since its start. */
export function machineBusySeconds(): number {
  const [, user, nice, system, , , irq, softirq, steal] = readFileSync('/proc/stat', 'utf8')
    .split('\n')[0]!
    .split(/\s+/)
    .map(Number);
  return (user! + nice! + system! + irq! + softirq! + steal!) / TICKS_PER_S;
}

/** CPU seconds of a process and of all that it has started and that still run. */
export function cpuSecondsOfTree(root: number): number {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
    } catch {
      // It has ended meanwhile.
    }
  }
  const sum = (pid: number): number =>
    (children.get(pid) ?? []).reduce((seconds, child) => seconds + sum(child), cpuSecondsOf(pid));
  return sum(root);
}
