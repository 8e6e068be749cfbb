/** Composition root of the replay. */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { ConfigError, runService } from '@onemall/service-kit';
import { BadRows } from './adapters/bad-rows.ts';
import { readMapping } from './adapters/mapping-file.ts';
import { sourceFiles } from './adapters/read-tables.ts';
import { readState, writeState } from './adapters/state-file.ts';
import { replayConfig } from './config.ts';
import { followTopic } from './follow-topic.ts';
import { play } from './pipeline.ts';
import { prepare } from './prepare.ts';

const TOPICS = ['items', 'exposures', 'clicks', 'buys'] as const;
const KAFKA = 'kafka:';

await runService({
  name: 'replay',
  config: () => {
    const config = replayConfig();
    const mapping = readMapping(config.replayMapping);
    const files = config.replaySource.startsWith(KAFKA) ? [] : sourceFiles(config.replaySource);
    const windows = config.scenarios[mapping.scenario];
    if (!windows)
      throw new ConfigError(
        `Mapping ${mapping.name} has scenario ${mapping.scenario}, configured are ${Object.keys(config.scenarios).join(', ')}: add it to scenarios (ONEMALL_SCENARIOS)`,
      );
    return { ...config, mapping, files, windows };
  },
  start: async (context) => {
    const { config, log, clock, meter, stopping, fail } = context;
    const { mapping, files, windows } = config;
    const io = await connectKafka({
      ...kafkaSettings(config),
      clientId: 'replay',
    });
    const largestWindowMs = Math.max(
      ...Object.values(config.scenarios).flatMap((s) => [s.clickWindowMs, s.buyWindowMs]),
    );
    const { graceMs, longestOutageMs } = config;
    await io.checkTopics(TOPICS, { largestWindowMs, graceMs, longestOutageMs });
    const badRows = new BadRows(log, meter);

    if (config.replaySource.startsWith(KAFKA)) {
      const following = followTopic({
        io,
        context,
        mapping,
        source: config.replaySource.slice(KAFKA.length),
        follow: config.replayFollow,
        badRows,
      });
      following.catch(fail);
      return {
        stop: async () => {
          await following;
          await io.close();
        },
      };
    }

    const writer = await io.openWriter();
    const logName = createHash('sha256')
      .update(JSON.stringify([mapping, files.map((f) => path.basename(f)), config.seed]))
      .digest('hex')
      .slice(0, 16);
    const stateFile = path.join(config.dataDir, 'replay', 'state.json');
    const known = await io.endOffsets('exposures');
    // a new log of events means that the old one was removed: begin anew
    const anew = known.every((p) => p.offset === 0);
    const state = anew ? { log: logName, rounds: 0, sent: 0 } : readState(stateFile, logName);

    const prepared = await prepare({
      files,
      mapping,
      seed: config.seed,
      sortLimit: config.replaySortRows,
      folder: path.join(config.dataDir, 'replay'),
      latestMs: clock.nowMs() + config.allowedClockSkewMs,
      onBadRow: (bad) => badRows.add(bad),
      stopping,
    });
    meter.recordIn(prepared.rows + badRows.count);
    meter.set('actions_without_list', prepared.withoutList, 'Clicks and buys on items that no list shows');
    const { events, sampler: _sampler, ...counts } = prepared;
    log.info(
      { mapping: mapping.name, events: events.count, badRows: badRows.count, ...counts },
      'log prepared',
    );
    if (prepared.syntheticExposures > 0)
      log.warn(
        { syntheticExposures: prepared.syntheticExposures, syntheticNegatives: prepared.syntheticNegatives },
        'this log has no exposures: they and their negatives are synthetic',
      );

    const playing = play({
      prepared,
      writer,
      meter,
      clock,
      stopping,
      state,
      save: (s) => writeState(stateFile, s),
      rate: config.replayRate,
      speedUp: config.replaySpeedUp,
      times: config.replayTimes,
      loop: config.replayLoop,
      scenario: mapping.scenario,
      itemsAhead: config.replayItemsAhead,
      ...windows,
    }).then(() => {
      meter.set('done', 1, '1 after the last event of the log');
      if (!stopping.aborted) log.info('the log is at its end');
    });
    playing.catch(fail);
    return {
      stop: async () => {
        await playing;
        await events.close();
        await writer.close();
        await io.close();
      },
    };
  },
});
