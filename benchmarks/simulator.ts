/** The simulator as fast as it can: generate, encode, produce to a real broker, acknowledged. Bar: 20,000 events/s. */
import { connectKafka } from '@onemall/kafka-io';
import { StageMeter, systemClock } from '@onemall/service-kit';
import { startTestStack } from '@onemall/testkit';
import { readWorld } from '../apps/simulator/src/adapters/world-file.ts';
import { openRooms, publishCatalogue, runTraffic } from '../apps/simulator/src/pipeline.ts';
import { worldHash } from '../apps/simulator/src/world/spec.ts';
import { World } from '../apps/simulator/src/world/world.ts';
import { load, measure, versions } from './report/machine.ts';
import { type Benchmark, median } from './report/result.ts';

const ROUNDS = 5;
const EVENTS = 100_000;
const BAR = 20_000;
const WINDOWS = { clickWindowMs: 600_000, buyWindowMs: 1_800_000 };
const TOPICS = ['items', 'live-product-changes', 'exposures', 'clicks', 'buys'] as const;

const benchmark: Benchmark = async (print) => {
  const stack = await startTestStack();
  try {
    const io = await connectKafka({
      brokers: stack.brokers,
      registryUrl: stack.registryUrl,
      namespace: stack.newNamespace(),
      clientId: 'bench',
    });
    await io.createTopics(TOPICS, {
      retention: { largestWindowMs: WINDOWS.buyWindowMs, graceMs: 0, longestOutageMs: 0 },
    });
    await io.registerSchemas(TOPICS);
    const spec = readWorld('demo');
    const writer = await io.openWriter();
    const rounds: { eventsPerS: number; cpuUsPerEvent: number; load: number }[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const world = new World(spec, {
        seed: 1,
        run: round,
        runId: `b${round}`,
        startMs: 1_700_000_000_000,
        eventsPerS: 20_000,
        scenarios: { product_card: WINDOWS, short_video: WINDOWS, live_stream: WINDOWS },
        disorder: {
          outOfOrderShare: 0.05,
          outOfOrderMs: 200,
          duplicateShare: 0.01,
          duplicateMs: 2_000,
          lateShare: 0,
          lateMs: 0,
          missingExposureIdShare: 0.05,
        },
      });
      const meter = new StageMeter(`simulator-${round}`);
      const options = {
        world,
        writer,
        meter,
        clock: systemClock,
        stopping: new AbortController().signal,
        state: { run: round, catalogue: '', openRooms: [], reachedMs: 0 },
        save: () => undefined,
        dueMs: () => Number.POSITIVE_INFINITY,
        maySkip: false,
        batchMs: 200,
        batchRecords: 4_000,
        maxEvents: EVENTS,
      };
      if (round === 0) await publishCatalogue(world, writer, meter, 0);
      await openRooms(options, `b${round}`, 1_700_000_000_000);
      const spent = await measure(() => runTraffic(options));
      rounds.push({
        eventsPerS: Math.round(EVENTS / spent.seconds),
        cpuUsPerEvent: (spent.cpuSeconds * 1e6) / EVENTS,
        load: load(),
      });
      print(`round ${round + 1}: ${JSON.stringify(rounds.at(-1))}`);
    }
    await writer.close();
    await io.close();
    const eventsPerS = median(rounds.map((r) => r.eventsPerS));
    return {
      name: 'simulator',
      versions: { ...versions(), world: worldHash(spec) },
      ours: { eventsPerS, cpuUsPerEvent: median(rounds.map((r) => r.cpuUsPerEvent)), rounds },
      peer: null,
      peerNote: 'none: nothing else makes this world',
      ratios: {},
      bars: [{ name: 'events per second', value: eventsPerS, bar: BAR, ok: eventsPerS >= BAR }],
    };
  } finally {
    await stack.stop();
  }
};
export default benchmark;
