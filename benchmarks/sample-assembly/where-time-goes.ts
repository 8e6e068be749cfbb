/** Sorts the samples of a V8 CPU profile by what the assembler was doing. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string } }[];
  samples: number[];
  timeDeltas: number[];
}

/** The first that matches a frame's file and function names it. */
const PARTS: readonly [part: string, pattern: RegExp][] = [
  ['garbage collection', /^\(garbage collector\)/],
  ['idle', /^\((idle|program)\)/],
  ['checksums', /crc32c/],
  ['fetch', /log-reader|data-plane\/fetch|record-batch|fetched|learn-schemas|compression|lz4/],
  ['decode', /read-event|event-fields|AvroReader|\b(long|string|isSome|skip|locate|readHead)\b.*bytes\/avro/],
  ['encode', /write-sample|catalogue|as-of-table|label-exposure|labels|bytes\/avro/],
  ['state', /sample-assembler\/src\/(bytes|state)\//],
  ['join', /sample-assembler\/src\/stages\/|event-time\//],
  ['produce', /batch-builder|batch-set|data-plane\/produce|sequenced-sender/],
  [
    'commit',
    /transactional-writer|data-plane\/transactions|live-partition|join-meter|stage-meter|committed-offsets/,
  ],
  [
    'client and sockets',
    /kafkajs|kafka-io|node:(net|internal\/stream|buffer|internal\/buffer)|writev|writeBuffer/,
  ],
];

/** Share of the busy time by part, greatest first. */
export function whereTimeGoes(folder: string): Record<string, number> {
  const [file] = readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'));
  if (!file) throw new Error(`No CPU profile in ${folder}`);
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as Profile;
  const partOf = new Map(
    nodes.map(({ id, callFrame: { functionName, url } }) => {
      const frame = `${functionName} ${url}`;
      return [id, PARTS.find(([, pattern]) => pattern.test(frame))?.[0] ?? 'other'];
    }),
  );
  const spent = new Map<string, number>();
  for (const [i, id] of samples.entries()) {
    const part = partOf.get(id)!;
    spent.set(part, (spent.get(part) ?? 0) + timeDeltas[i]!);
  }
  spent.delete('idle');
  const total = [...spent.values()].reduce((sum, us) => sum + us, 0);
  return Object.fromEntries(
    [...spent]
      .sort((a, b) => b[1] - a[1])
      .map(([part, us]) => [part, Math.round((us / total) * 1000) / 1000]),
  );
}
