/** What every benchmark answers, and writes with --json. */
export interface Bar {
  name: string;
  value: number;
  bar: number;
  ok: boolean;
}
export interface BenchmarkResult {
  name: string;
  versions: Record<string, string>;
  ours: Record<string, unknown>;
  /** null where the peer's tools are absent or there is none; `peerNote` says which. */
  peer: Record<string, unknown> | null;
  peerNote?: string;
  ratios: Record<string, number>;
  bars: Bar[];
  /** Why nothing could be measured here. */
  notMeasured?: string;
}
/** 0, or 1 where a bar is missed, 3 where nothing could be measured. */
export const exitCodeOf = ({ bars, notMeasured }: BenchmarkResult): number =>
  notMeasured !== undefined ? 3 : bars.every((b) => b.ok) ? 0 : 1;

/** The default export of benchmarks/NAME.ts. */
export type Benchmark = (print: (line: string) => void) => Promise<BenchmarkResult>;

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};
