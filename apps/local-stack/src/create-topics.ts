/**
 * Creates all topics and registers all schemas, then ends: the first step of `docker compose up` and of a cluster of
 * one's own. Safe to run again; what exists stays as it is.
 */
import { TOPICS } from '@onemall/contracts';
import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { ConfigError, loadConfig } from '@onemall/service-kit';
import { retentionOf } from './settings.ts';

try {
  const config = loadConfig({});
  const io = await connectKafka({
    ...kafkaSettings(config),
    clientId: 'create-topics',
  });
  const names = TOPICS.map((topic) => topic.name);
  try {
    await io.createTopics(names, { retention: retentionOf(config) });
    await io.registerSchemas(names);
    console.log(`${names.length} topics named ${config.namespace}.* and their schemas are there`);
  } finally {
    await io.close();
  }
} catch (error) {
  console.error(error instanceof ConfigError ? error.message : error);
  process.exitCode = 1;
}
