/** ClickHouse's JSONCompact format. */
export interface CompactResult {
  meta: { name: string; type: string }[];
  data: unknown[][];
}

/** Aligned columns for a terminal, numbers to the right. Says so when there are no rows. */
export function renderTable({ meta, data }: CompactResult): string {
  if (data.length === 0) return 'No rows yet.\n';
  const cells = [
    meta.map((m) => m.name),
    ...data.map((row) => row.map((v) => (typeof v === 'string' ? v : JSON.stringify(v)))),
  ];
  const widths = meta.map((_, c) => Math.max(...cells.map((row) => row[c]!.length)));
  const right = meta.map(
    (m) => /Int|Float/.test(m.type) && !m.type.startsWith('Array') && !m.type.startsWith('Map'),
  );
  const lines = cells.map((row) =>
    row
      .map((cell, c) => (right[c] ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!)))
      .join('  ')
      .trimEnd(),
  );
  lines.splice(1, 0, widths.map((w) => '─'.repeat(w)).join('  '));
  return `${lines.join('\n')}\n`;
}
