/** Topics are created from the table and checked against it: a live topic that would lose data is refused. */
import { type TopicName, type TopicSpec, topicConfig, topicSpec } from '@onemall/contracts';
import type { Admin } from 'kafkajs';
import { type Brokers, LeaderAwayError } from './brokers.ts';
import { TopicRefusedError } from './errors.ts';
import { MissingTopics } from './missing-topics.ts';
import type { RetentionSettings } from './ports.ts';
import type { TopicNames } from './topic-names.ts';

const BROKER_DEFAULT = -1;
/** kafkajs exports its enum of these in a way that ES modules do not see. */
const TOPIC_RESOURCE = 2;

export class Topics {
  readonly #admin: Admin;
  readonly #brokers: Brokers;
  readonly #names: TopicNames;
  readonly #addresses: string;

  constructor(options: { admin: Admin; brokers: Brokers; names: TopicNames; addresses: string }) {
    this.#admin = options.admin;
    this.#brokers = options.brokers;
    this.#names = options.names;
    this.#addresses = options.addresses;
  }

  async create(
    topics: readonly TopicName[],
    { retention, numPartitions }: { retention: RetentionSettings; numPartitions?: number },
  ): Promise<void> {
    await this.#brokers.waitOut('creating topics', async () => {
      const existing = new Set(await this.#admin.listTopics());
      const missing = topics.map(topicSpec).filter((spec) => !existing.has(this.#names.physical(spec.name)));
      if (missing.length === 0) return;
      await this.#admin.createTopics({
        waitForLeaders: true,
        topics: missing.map((spec) => ({
          topic: this.#names.physical(spec.name),
          numPartitions: wantedPartitions(spec, numPartitions),
          replicationFactor: BROKER_DEFAULT,
          configEntries: Object.entries(topicConfig(spec, retention)).map(([name, value]) => ({
            name,
            value,
          })),
        })),
      });
    });
  }

  /** @throws TopicRefusedError with a line for each thing that is wrong */
  async check(topics: readonly TopicName[], retention: RetentionSettings): Promise<void> {
    const doubt = new MissingTopics();
    const refusals = await this.#brokers.waitOut('checking topics', async () => {
      const existing = new Set(
        await this.#admin.listTopics().catch((error: unknown) => {
          doubt.isCertain(error, performance.now());
          throw error;
        }),
      );
      const present = topics.filter((t) => existing.has(this.#names.physical(t)));
      const missing = topics.filter((t) => !present.includes(t));
      if (missing.length > 0 && !doubt.isCertainOfAnswer(performance.now()))
        throw new LeaderAwayError(`No metadata of ${missing.map((t) => this.#names.physical(t))} yet`);
      return [
        ...missing.map((t) => this.#missing(topicSpec(t), retention)),
        ...(await this.#wrongSettings(present, retention)),
        ...(await this.#unequalPartitions(present)),
      ];
    });
    if (refusals.length > 0)
      throw new TopicRefusedError(`Topics are not as the pipeline needs them:\n${refusals.join('\n')}`);
  }

  #missing(spec: TopicSpec, retention: RetentionSettings): string {
    const config = Object.entries(topicConfig(spec, retention)).map(([k, v]) => ` --config ${k}=${v}`);
    return `  ${this.#names.physical(spec.name)} does not exist. Create it: kafka-topics.sh --bootstrap-server ${this.#addresses} --create --topic ${this.#names.physical(spec.name)} --partitions ${spec.numPartitions}${config.join('')}`;
  }

  async #wrongSettings(topics: readonly TopicName[], retention: RetentionSettings): Promise<string[]> {
    if (topics.length === 0) return [];
    const { resources } = await this.#admin.describeConfigs({
      includeSynonyms: false,
      resources: topics.map((t) => ({ type: TOPIC_RESOURCE, name: this.#names.physical(t) })),
    });
    return resources.flatMap(({ resourceName, configEntries }) => {
      const spec = topicSpec(this.#names.logical(resourceName));
      const live = new Map(configEntries.map((e) => [e.configName, e.configValue]));
      return Object.entries(neededConfig(spec, retention))
        .filter(([name, needed]) => !isEnough(name, needed, live.get(name)))
        .map(
          ([name, needed]) =>
            `  ${resourceName}: ${name} is ${live.get(name)}, needed is ${AT_LEAST.has(name) ? 'at least ' : ''}${needed}. Mend it: kafka-configs.sh --bootstrap-server ${this.#addresses} --alter --entity-type topics --entity-name ${resourceName} --add-config ${name}=${needed}`,
        );
    });
  }

  async #unequalPartitions(topics: readonly TopicName[]): Promise<string[]> {
    const joined = topics.map(topicSpec).filter((s) => s.coPartitioned !== undefined);
    const refusals: string[] = [];
    for (const [group, specs] of Map.groupBy(joined, (s) => s.coPartitioned)) {
      await this.#brokers.use(specs.map((s) => this.#names.physical(s.name)));
      const counts = specs.map(
        (s) => [s.name, this.#brokers.numPartitions(this.#names.physical(s.name))] as const,
      );
      const most = Math.max(...counts.map(([, n]) => n));
      for (const [name, count] of counts)
        if (count !== most)
          refusals.push(
            `  ${this.#names.physical(name)} has ${count} partitions, others of the group '${group}' have ${most} (${counts.map(([t, n]) => `${t} ${n}`).join(', ')}): partition p of all is joined together. While it is empty, mend it: kafka-topics.sh --bootstrap-server ${this.#addresses} --alter --topic ${this.#names.physical(name)} --partitions ${most}; with records in it, delete it, create it with ${most} partitions and write them again`,
          );
    }
    return refusals;
  }
}

/** Topics that the table gives one partition keep it. */
export const wantedPartitions = (spec: TopicSpec, numPartitions: number | undefined): number =>
  spec.numPartitions === 1 ? 1 : (numPartitions ?? spec.numPartitions);

/** A limit by size deletes records before their time is up, whatever retention.ms says. */
const neededConfig = (spec: TopicSpec, retention: RetentionSettings): Record<string, string> => ({
  ...topicConfig(spec, retention),
  ...(spec.cleanup === 'delete' && { 'retention.bytes': '-1' }),
});

const AT_LEAST = new Set([
  'retention.ms',
  'min.compaction.lag.ms',
  'delete.retention.ms',
  'max.message.bytes',
]);

function isEnough(name: string, needed: string, live: string | undefined): boolean {
  if (live === undefined) return false;
  if (name === 'retention.ms' && live === '-1') return true;
  return AT_LEAST.has(name) ? Number(live) >= Number(needed) : live === needed;
}
