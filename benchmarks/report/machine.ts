/** What the machine is and how busy it is: figures only compare with these beside them. */
import { availableParallelism, cpus, loadavg } from 'node:os';

export const versions = (): Record<string, string> => ({
  node: process.versions.node,
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: String(availableParallelism()),
});

/** 1-minute load average: what this and other processes ask of the cores. */
export const load = (): number => Math.round(loadavg()[0]! * 100) / 100;

export interface Spent {
  seconds: number;
  cpuSeconds: number;
}

/** Wall and CPU seconds of this process while `work` runs. */
export async function measure(work: () => Promise<unknown>): Promise<Spent> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { seconds, cpuSeconds: (user + system) / 1e6 };
}
