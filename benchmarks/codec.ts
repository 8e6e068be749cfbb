/** Decoding clicks from the wire format, beside avsc alone on the same bytes. Bar: 1.5 M decodes/s. */
import { avroType, encodeValue, fullSchema, schemaIdOf, ValueReader } from '@onemall/contracts';
import { SeededRandom } from '@onemall/service-kit';
import { load, measure, versions } from './report/machine.ts';
import { type Benchmark, median } from './report/result.ts';

const ROUNDS = 7;
const VALUES = 1_000;
const PASSES = 1_000;
const BAR = 1_500_000;

const benchmark: Benchmark = async (print) => {
  const random = new SeededRandom(1);
  const values = Array.from({ length: VALUES }, (_, i) =>
    encodeValue('clicks', 1, {
      actionId: `a${i}`,
      exposureId: `r${random.int(1_000_000)}-${random.int(20)}`,
      userId: `u${random.int(100_000)}`,
      itemId: `p${random.int(100_000)}`,
      eventTimeMs: 1_700_000_000_000 + random.int(1_000_000_000),
    }),
  );
  const readers = new Map([[1, new ValueReader('clicks', fullSchema('Click'))]]);
  const type = avroType('Click');
  const bare = values.map((value) => value.subarray(5));
  let newest = 0;
  const ours = () => {
    for (let pass = 0; pass < PASSES; pass++)
      for (const value of values)
        newest = Math.max(newest, readers.get(schemaIdOf(value))!.read(value).eventTimeMs);
  };
  const avsc = () => {
    for (let pass = 0; pass < PASSES; pass++)
      for (const value of bare)
        newest = Math.max(newest, (type.fromBuffer(value) as { eventTimeMs: number }).eventTimeMs);
  };
  const rounds: { ours: number; avsc: number; load: number }[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const a = await measure(async () => ours());
    const b = await measure(async () => avsc());
    const perS = (seconds: number): number => Math.round((VALUES * PASSES) / seconds);
    // The first round warms up.
    if (round > 0) rounds.push({ ours: perS(a.seconds), avsc: perS(b.seconds), load: load() });
  }
  print(`newest event time read: ${newest}`);
  const oursPerS = median(rounds.map((r) => r.ours));
  const peerPerS = median(rounds.map((r) => r.avsc));
  return {
    name: 'codec',
    versions: versions(),
    ours: { decodesPerS: oursPerS, rounds },
    peer: { name: 'avsc alone', decodesPerS: peerPerS },
    ratios: { 'decodes/s, ours to avsc': median(rounds.map((r) => r.ours / r.avsc)) },
    bars: [{ name: 'decodes per second', value: oursPerS, bar: BAR, ok: oursPerS >= BAR }],
  };
};
export default benchmark;
