import { topicConfig, topicSpec } from '@onemall/contracts';
import { AttributionWindows } from '@onemall/event-time';
import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService } from '@onemall/service-kit';
import { openCatalogue } from './adapters/catalogue-tables.ts';
import { boundYoungGeneration, spaceOutFullCollections } from './adapters/collector.ts';
import { HistoryDisk } from './adapters/history-disk.ts';
import { JoinMeter } from './adapters/join-meter.ts';
import { PartitionOwner } from './adapters/partition-owner.ts';
import { Snapshots } from './adapters/snapshots.ts';
import { checkStart } from './adapters/start-checks.ts';
import { StateMemory } from './adapters/state-memory.ts';
import { sampleAssemblerConfig } from './config.ts';
import { assembleSamples } from './pipeline.ts';

const NAME = 'sample-assembler';
const MIB = 1 << 20;
const monotonicMs = (): number => performance.now();

boundYoungGeneration();
spaceOutFullCollections();

await runService({
  name: NAME,
  config: sampleAssemblerConfig,
  maxDrainMs: 25_000, // snapshots of millions of open exposures; the group was left before
  start: async ({ config, log, clock, meter: stageMeter, artifacts, fail, stopping }) => {
    const { scenarios, graceMs, outOfOrdernessMs, allowedClockSkewMs, longestOutageMs } = config;
    const windows = new AttributionWindows({ scenarios, graceMs, outOfOrdernessMs });
    const groupId = `${config.namespace}.${NAME}`;
    const io = await connectKafka({
      ...kafkaSettings(config),
      clientId: NAME,
      validation: { scenarios: new Set(Object.keys(scenarios)), allowedClockSkewMs },
      clock,
    });
    const retention = { largestWindowMs: windows.largestWindowMs, graceMs, longestOutageMs };
    const facts = await checkStart(io, groupId, retention, config.acceptLoss);
    const tables = await openCatalogue(io, stageMeter, fail);
    await tables.readToEnd();
    const reader = await io.openReader();
    const meter = new JoinMeter(stageMeter, clock);
    const rules = {
      windows,
      historyLength: config.historyLength,
      emitPositives: config.emit.includes('positive'),
      sampleHeader: await io.wireHeader('training-samples'),
    };
    const keepUsersMs = Number(topicConfig(topicSpec('exposures'), retention)['retention.ms']);
    const { catalogue } = tables;
    const openHistories = (): HistoryDisk => new HistoryDisk(config.historyFolder);
    const snapshots = new Snapshots({
      artifacts,
      namespace: config.namespace,
      rules,
      openHistories,
      kept: config.snapshotsKept,
      clock,
      log,
      meter,
    });
    const stateMemory = new StateMemory(config.maxStateMb * MIB);
    return assembleSamples({
      io,
      config,
      groupId,
      reader,
      tables,
      meter,
      newOwner: (partition) =>
        new PartitionOwner(partition, {
          io,
          config,
          rules,
          catalogue,
          reader,
          groupId,
          facts,
          clock,
          monotonicMs,
          meter,
          log,
          keepUsersMs,
          snapshots,
          stateMemory,
          openHistories,
          fail,
        }),
      pause: (ms) => clock.sleep(ms, stopping).catch(() => {}),
      monotonicMs,
      keepVersionsMs: windows.longestOpenMs + longestOutageMs,
      stopping,
      fail,
    });
  },
});
