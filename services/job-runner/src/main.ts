import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService } from '@onemall/service-kit';
import { requireRedis } from './adapters/redis.ts';
import { readConfig } from './config.ts';
import { startPipeline } from './pipeline.ts';

const NAME = 'job-runner';

await runService({
  name: NAME,
  config: readConfig,
  start: async (context) => {
    const { scenarios, allowedClockSkewMs, redisUrl } = context.config;
    await requireRedis(redisUrl).catch((error: Error) => {
      console.error(`${NAME}: ${error.message}`);
      process.exit(2);
    });
    const kafka = await connectKafka({
      ...kafkaSettings(context.config),
      clientId: NAME,
      validation: { scenarios: new Set(Object.keys(scenarios)), allowedClockSkewMs },
    });
    await kafka.registerSchemas(['codebooks', 'retrieval-metrics']);
    const pipeline = await startPipeline(context, kafka);
    return {
      stop: async () => {
        await pipeline.stop();
        await kafka.close();
      },
    };
  },
});
