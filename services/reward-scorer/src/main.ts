import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService, SeededRandom } from '@onemall/service-kit';
import { followHttpRanker } from './adapters/http-ranker.ts';
import { openItemTables } from './adapters/item-tables.ts';
import { followRankers } from './adapters/ranker-source.ts';
import { readConfig } from './config.ts';
import { runScoring } from './pipeline.ts';
import { ItemFacts } from './state/item-facts.ts';

const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 10_000;

await runService({
  name: 'reward-scorer',
  config: readConfig,
  start: async ({ config, clock, log, meter, artifacts, fail, stopping }) => {
    const kafka = await connectKafka({
      ...kafkaSettings(config),
      clientId: 'reward-scorer',
      clock,
      validation: {
        scenarios: new Set(Object.keys(config.scenarios)),
        allowedClockSkewMs: config.allowedClockSkewMs,
      },
    });
    const facts = new ItemFacts();
    const tables = await openItemTables({ kafka, facts, meter, fail });
    const { rankers, close: closeRankers } =
      config.rankerUrl === ''
        ? await followRankers({ kafka, artifacts, log, meter, fail })
        : followHttpRanker({
            url: config.rankerUrl,
            timeoutMs: config.rankerTimeoutMs,
            maxInFlight: config.rankerMaxInFlight,
            batchRows: config.rankerHttpRows,
            attempts: config.rankerAttempts,
            refreshMs: config.rankerRefreshMs,
            firstRetryMs: FIRST_RETRY_MS,
            longestRetryMs: LONGEST_RETRY_MS,
            random: new SeededRandom(config.seed),
            ...{ clock, log, meter, stopping },
          });
    const scoring = await runScoring({ kafka, config, clock, log, meter, stopping, fail, rankers, facts });
    return {
      async stop() {
        await scoring.stop();
        await closeRankers();
        await tables.close();
        await kafka.close();
      },
    };
  },
});
