/** Composition root of the simulator. */
import path from 'node:path';
import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService } from '@onemall/service-kit';
import { PoliciesUnderTest } from './adapters/policies-under-test.ts';
import { readState, writeState } from './adapters/state-file.ts';
import { readWorld } from './adapters/world-file.ts';
import { disorderOf, largestWindowMs, simulatorConfig } from './config.ts';
import { openRooms, publishCatalogue, runTraffic, type TrafficOptions } from './pipeline.ts';
import { worldHash } from './world/spec.ts';
import { World } from './world/world.ts';

const TOPICS = ['items', 'live-product-changes', 'exposures', 'clicks', 'buys'] as const;

await runService({
  name: 'simulator',
  config: simulatorConfig,
  start: async ({ config, log, clock, meter, stopping, fail }) => {
    const spec = readWorld(config.simulatorWorld);
    const hash = worldHash(spec);
    const stateFile = path.join(config.dataDir, 'simulator', 'state.json');
    const state = readState(stateFile);
    const run = state.run++;
    const save = (): void => writeState(stateFile, state);
    save();

    const io = await connectKafka({
      ...kafkaSettings(config),
      clientId: 'simulator',
    });
    await io.checkTopics(TOPICS, {
      largestWindowMs: largestWindowMs(config),
      graceMs: config.graceMs,
      longestOutageMs: config.longestOutageMs,
    });
    const writer = await io.openWriter();
    const wall = config.simulatorTimes === 'wall';
    const startMs = wall ? clock.nowMs() : Math.max(state.reachedMs, config.simulatorStartTimeMs);
    // A lost state file must not bring old ids back: in wall time the second of the start is part of them.
    const runId = wall ? `${run}-${Math.floor(startMs / 1000).toString(36)}` : `${run}`;
    const world = new World(spec, {
      seed: config.seed,
      run,
      runId,
      startMs,
      eventsPerS: config.simulatorRate,
      scenarios: config.scenarios,
      disorder: disorderOf(config),
      arms: config.simulatorArms,
      armRequests: {
        from: config.simulatorArmsFrom,
        until: config.simulatorArmsFrom + (config.simulatorArmsRequests || Number.POSITIVE_INFINITY),
      },
    });
    const policies =
      config.simulatorArms.length > 0
        ? new PoliciesUnderTest({
            catalogue: world.catalogue,
            urls: new Map(config.simulatorArms.map((arm) => [arm.name, arm.url])),
            historyLength: config.simulatorHistoryLength,
            timeoutMs: config.simulatorArmTimeoutMs,
            log,
          })
        : undefined;
    log.info(
      { world: spec.name, worldHash: hash, options: spec.options, seed: config.seed, run, runId },
      'world',
    );

    const catalogue = `${hash}:${config.seed}:${Object.keys(config.scenarios).sort().join(',')}`;
    const known = (await io.endOffsets('items')).reduce((sum, p) => sum + p.offset, 0);
    if (state.catalogue !== catalogue || known === 0) {
      const items = await publishCatalogue(world, writer, meter, startMs);
      log.info({ items }, 'catalogue published');
      state.catalogue = catalogue;
      save();
    }
    const beginMs = clock.nowMs();
    const options: TrafficOptions = {
      world,
      writer,
      meter,
      clock,
      stopping,
      state,
      save,
      dueMs: wall
        ? (nowMs) => nowMs
        : config.simulatorSpeedUp === 0
          ? () => Number.POSITIVE_INFINITY
          : (nowMs) => startMs + (nowMs - beginMs) * config.simulatorSpeedUp,
      maySkip: wall,
      batchMs: config.simulatorBatchMs,
      batchRecords: config.simulatorBatchRecords,
      maxEvents: config.simulatorMaxEvents,
      ...(policies && { policies }),
    };
    if (wall) world.skipTo(beginMs);
    await openRooms(options, runId, wall ? beginMs : startMs);
    const traffic = runTraffic(options).then((events) => {
      meter.set('done', 1, '1 after simulatorMaxEvents');
      if (!stopping.aborted) log.info({ events }, 'simulatorMaxEvents reached');
    });
    traffic.catch(fail);
    return {
      stop: async () => {
        await traffic;
        await writer.close();
        await io.close();
      },
    };
  },
});
