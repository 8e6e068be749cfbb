import type { BenchmarkResult } from './result.ts';

/** Figures, ratios and bars as a table. */
export function printResult(result: BenchmarkResult): void {
  console.log(
    `\n${result.name}  (${Object.entries(result.versions)
      .map(([k, v]) => `${k} ${v}`)
      .join(', ')})`,
  );
  const rows = new Set([...Object.keys(result.ours), ...Object.keys(result.peer ?? {})]);
  for (const key of rows) {
    const peer = result.peer ? `   peer ${show(result.peer[key])}` : '';
    console.log(`  ${key.padEnd(32)} ${show(result.ours[key])}${peer}`);
  }
  if (result.notMeasured !== undefined) {
    console.log(`  NOT MEASURED: ${result.notMeasured}`);
    return;
  }
  if (!result.peer) console.log(`  peer: ${result.peerNote ?? 'its tools are not here'}`);
  for (const [key, ratio] of Object.entries(result.ratios))
    console.log(`  ${key.padEnd(32)} ${show(ratio)} x`);
  for (const { name, value, bar, ok } of result.bars)
    console.log(`  ${ok ? 'ok    ' : 'MISSED'} ${name}: ${show(value)}, bar ${show(bar)}`);
}

function show(value: unknown): string {
  if (typeof value === 'number')
    return Number.isInteger(value) ? value.toLocaleString('en') : value.toPrecision(4);
  return value === undefined ? '-' : JSON.stringify(value);
}
