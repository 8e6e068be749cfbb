/**
 * `npm run inspect -- sample-assembler --exposure ID [--json]`: what happened to one exposure. Asks the pipeline that `npm
 * start` runs here, or the broker and registry in the environment (ONEMALL_KAFKA_BROKERS, ONEMALL_REGISTRY_URL, ONEMALL_NAMESPACE).
 * Reads only. Exit code 1 where the id is not in the log or nobody answers, 2 for a wrong call.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { AttributionWindows } from '@onemall/event-time';
import { connectKafka, type KafkaIo, kafkaSettings, TopicMissingError } from '@onemall/kafka-io';
import { ConfigError, loadConfig, type StageStatus, z } from '@onemall/service-kit';
import { type SampleAssemblerConfig, sampleAssemblerConfig } from '../src/config.ts';
import { collect } from './collect.ts';
import { storyLines, tellStory } from './story.ts';

const NAME = 'sample-assembler';
const USAGE = `Usage: npm run inspect -- ${NAME} --exposure ID [--json]`;
const CONNECT_MS = 10_000;
const addresses = {
  servicesFile: z.string().default('').describe('where npm start says how its services are reached'),
};

function end(code: 1 | 2, message: string): never {
  console.error(message);
  process.exit(code);
}

function wish(): { exposureId: string; asJson: boolean } {
  try {
    const { values, positionals } = parseArgs({
      options: { exposure: { type: 'string' }, json: { type: 'boolean', default: false } },
      allowPositionals: true,
    });
    if (positionals.length !== 1 || positionals[0] !== NAME)
      end(2, `Expected the stage to inspect, ${NAME}, got ${positionals.join(' ') || 'nothing'}. ${USAGE}`);
    if (!values.exposure) end(2, `Expected --exposure with an exposureId. ${USAGE}`);
    return { exposureId: values.exposure, asJson: values.json };
  } catch (error) {
    return end(2, `${(error as Error).message}. ${USAGE}`);
  }
}

function settings(): { config: SampleAssemblerConfig; servicesFile: string } {
  try {
    return { config: sampleAssemblerConfig(), servicesFile: loadConfig(addresses).servicesFile };
  } catch (error) {
    if (error instanceof ConfigError) return end(2, error.message);
    throw error;
  }
}

async function connect(config: SampleAssemblerConfig): Promise<KafkaIo> {
  const tooLong = setTimeout(
    () =>
      end(
        1,
        `No broker answers at ${config.kafkaBrokers} within ${CONNECT_MS / 1000} s: is npm start running? For another broker set ONEMALL_KAFKA_BROKERS, ONEMALL_REGISTRY_URL and ONEMALL_NAMESPACE`,
      ),
    CONNECT_MS,
  );
  const io = await connectKafka({
    ...kafkaSettings(config),
    clientId: 'inspect',
    onLog: () => {},
  });
  await io.numPartitions('exposures').catch((error: unknown) => {
    if (error instanceof TopicMissingError)
      end(1, `No topics of namespace ${config.namespace} at ${config.kafkaBrokers}: set ONEMALL_NAMESPACE`);
    throw error;
  });
  clearTimeout(tooLong);
  return io;
}

/** What the owner of the partition says of it, where npm start says how instances are reached. */
async function statusOf(servicesFile: string, partition: number): Promise<Record<string, number> | null> {
  let urls: string[] = [];
  try {
    const services = JSON.parse(readFileSync(servicesFile, 'utf8')) as Record<string, string>;
    urls = Object.entries(services)
      .filter(([name]) => name.startsWith(NAME))
      .map(([, url]) => url);
  } catch {
    return null; // no npm start here: the story is told without it
  }
  for (const url of urls) {
    const response = await fetch(`${url}/status`, { signal: AbortSignal.timeout(3_000) }).catch(() => null);
    if (!response?.ok) continue;
    const { values } = (await response.json()) as StageStatus;
    const suffix = `_p${partition}`;
    const mine = Object.entries(values).filter(([name]) => name.endsWith(suffix));
    if (mine.length > 0)
      return Object.fromEntries(mine.map(([name, value]) => [name.slice(0, -suffix.length), value]));
  }
  return null;
}

const { exposureId, asJson } = wish();
const { config, servicesFile } = settings();
const io = await connect(config);
try {
  const found = await collect(io, `${config.namespace}.${NAME}`, exposureId);
  if (!found) {
    console.error(
      `No exposure ${exposureId} in the log of namespace ${config.namespace} at ${config.kafkaBrokers}: it was never sent there, does not decode, or is older than the topic's retention`,
    );
    process.exitCode = 1;
  } else {
    const story = tellStory(exposureId, found, new AttributionWindows(config));
    const status = await statusOf(servicesFile, found.partition);
    console.log(asJson ? JSON.stringify({ ...story, status }) : storyLines(story, status).join('\n'));
  }
} finally {
  await io.close();
}
// Everything is said; a connection that was just being opened must not keep the process.
process.exit();
