import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService } from '@onemall/service-kit';
import { openItemTables } from './adapters/item-tables.ts';
import { followRankers } from './adapters/ranker-source.ts';
import { readConfig } from './config.ts';
import { runScoring } from './pipeline.ts';
import { ItemFacts } from './state/item-facts.ts';

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
    const { rankers, close: closeRankers } = await followRankers({ kafka, artifacts, log, meter, fail });
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
