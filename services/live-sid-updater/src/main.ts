import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService } from '@onemall/service-kit';
import { updaterConfig } from './config.ts';
import { OUTPUTS, startPipeline, topicsUsed } from './pipeline.ts';

const NAME = 'live-sid-updater';

await runService({
  name: NAME,
  config: updaterConfig,
  start: async (context) => {
    const { scenarios, graceMs, longestOutageMs, allowedClockSkewMs } = context.config;
    const kafka = await connectKafka({
      ...kafkaSettings(context.config),
      clientId: NAME,
      validation: { scenarios: new Set(Object.keys(scenarios)), allowedClockSkewMs },
    });
    const largestWindowMs = Math.max(...Object.values(scenarios).map((s) => s.buyWindowMs));
    await kafka.checkTopics(topicsUsed(), { largestWindowMs, graceMs, longestOutageMs });
    await kafka.registerSchemas(OUTPUTS);
    const pipeline = await startPipeline(context, kafka);
    return {
      stop: async () => {
        await pipeline.stop();
        await kafka.close();
      },
    };
  },
});
