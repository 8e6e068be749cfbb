/**
 * The topic table: one row per topic, its value schema, key, retention and compatibility. Everything that creates,
 * checks, documents or consumes topics reads it from here.
 */
import type {
  Buy,
  Click,
  Codebook,
  DeadLetter,
  Exposure,
  Item,
  ItemEmbedding,
  ItemSid,
  LateEvent,
  LiveSid,
  Metric,
  PolicyVersion,
  ProductChange,
  RewardBatch,
  Rollout,
  TrainingSample,
} from './generated/types.ts';

/** Value type of each topic, by the topic's name without namespace. */
export interface TopicValues {
  exposures: Exposure;
  clicks: Click;
  buys: Buy;
  items: Item;
  'live-product-changes': ProductChange;
  'item-sids': ItemSid;
  'live-sids': LiveSid;
  codebooks: Codebook;
  'policy-versions': PolicyVersion;
  'item-embeddings': ItemEmbedding;
  'training-samples': TrainingSample;
  'late-events': LateEvent;
  'dead-letters': DeadLetter;
  rollouts: Rollout;
  'reward-batches': RewardBatch;
  'training-metrics': Metric;
  'sid-metrics': Metric;
  'retrieval-metrics': Metric;
}
export type TopicName = keyof TopicValues;

export interface TopicSpec {
  name: TopicName;
  /** File name in schemas/ without its ending. */
  schema: string;
  /** What the record key holds; the partitioner is murmur2 of its UTF-8 bytes, as in the Java client. */
  key: string;
  cleanup: 'delete' | 'compact';
  /** Partitions where none are asked for. Topics of one group must have equal counts. */
  numPartitions: number;
  /** Topics with the same name here are joined partition by partition. */
  coPartitioned?: 'logs';
  /** LogAppendTime where the broker's clock decides whether an event time is believable. */
  timestamps: 'CreateTime' | 'LogAppendTime';
  /** Inputs come from others' servers: any past and future version must read any other. */
  compatibility: 'FULL_TRANSITIVE' | 'BACKWARD_TRANSITIVE';
}

const row = (
  name: TopicName,
  schema: string,
  key: string,
  cleanup: 'delete' | 'compact',
  more: Partial<TopicSpec> = {},
): TopicSpec => ({
  name,
  schema,
  key,
  cleanup,
  numPartitions: 4,
  timestamps: 'CreateTime',
  compatibility: 'BACKWARD_TRANSITIVE',
  ...more,
});
const log = { coPartitioned: 'logs', timestamps: 'LogAppendTime', compatibility: 'FULL_TRANSITIVE' } as const;
const input = { compatibility: 'FULL_TRANSITIVE' } as const;

export const TOPICS: readonly TopicSpec[] = [
  row('exposures', 'Exposure', 'userId', 'delete', log),
  row('clicks', 'Click', 'userId', 'delete', log),
  row('buys', 'Buy', 'userId', 'delete', log),
  row('items', 'Item', 'itemId', 'compact', input),
  row('live-product-changes', 'ProductChange', 'liveId', 'delete', input),
  row('item-sids', 'ItemSid', 'itemId:codebookVersion', 'compact'),
  row('live-sids', 'LiveSid', 'liveId:codebookVersion', 'compact'),
  row('codebooks', 'Codebook', 'scenario', 'compact', { numPartitions: 1 }),
  row('policy-versions', 'PolicyVersion', 'model', 'compact', { numPartitions: 1 }),
  row('item-embeddings', 'ItemEmbedding', 'itemId', 'compact'),
  row('training-samples', 'TrainingSample', 'userId', 'delete'),
  row('late-events', 'LateEvent', 'userId', 'delete'),
  row('dead-letters', 'DeadLetter', 'that of the source', 'delete'),
  row('rollouts', 'Rollout', 'requestId', 'delete'),
  row('reward-batches', 'RewardBatch', 'requestId', 'delete'),
  row('training-metrics', 'Metric', 'source', 'delete', { numPartitions: 1 }),
  row('sid-metrics', 'Metric', 'source', 'delete', { numPartitions: 1 }),
  row('retrieval-metrics', 'Metric', 'source', 'delete', { numPartitions: 1 }),
];

const byName = new Map(TOPICS.map((t) => [t.name, t]));

/** @throws Error if the table has no such topic. */
export function topicSpec(name: string): TopicSpec {
  const spec = byName.get(name as TopicName);
  if (!spec)
    throw new Error(`No topic ${name} in the topic table: known are ${TOPICS.map((t) => t.name).join(', ')}`);
  return spec;
}

/** `namespace.topic`: what the broker calls it. */
export const physicalTopic = (namespace: string, name: TopicName): string => `${namespace}.${name}`;

/** The broker's own default. */
const DEFAULT_MAX_MESSAGE_BYTES = 1_048_588;
const SEVEN_DAYS_MS = 7 * 24 * 3_600_000;

export interface RetentionInput {
  /** The largest attribution window of any scenario. */
  largestWindowMs: number;
  graceMs: number;
  /** The longest time the pipeline may stand still and lose nothing. */
  longestOutageMs: number;
}

/**
 * Broker configuration of a topic. Services compare the live topic with it at start and refuse one that would lose data.
 * Deleted topics keep at least 7 days; SID topics are never compacted inside the logs' retention plus two windows, so
 * that a replay finds the SIDs of its time.
 */
export function topicConfig(spec: TopicSpec, r: RetentionInput): Record<string, string> {
  const logRetentionMs = Math.max(SEVEN_DAYS_MS, 2 * r.largestWindowMs + r.graceMs + r.longestOutageMs);
  const config: Record<string, string> = {
    'cleanup.policy': spec.cleanup,
    'message.timestamp.type': spec.timestamps,
  };
  if (spec.cleanup === 'delete') config['retention.ms'] = String(logRetentionMs);
  if (spec.name === 'item-sids' || spec.name === 'live-sids') {
    const keepMs = String(logRetentionMs + 2 * r.largestWindowMs);
    config['min.compaction.lag.ms'] = keepMs;
    config['delete.retention.ms'] = keepMs;
  }
  // A dead letter carries the whole source record and its coordinates.
  if (spec.name === 'late-events' || spec.name === 'dead-letters')
    config['max.message.bytes'] = String(DEFAULT_MAX_MESSAGE_BYTES + 65_536);
  // A sample carries the whole exposure and histories, what follows from it carries the histories.
  if (spec.name === 'training-samples' || spec.name === 'rollouts' || spec.name === 'reward-batches')
    config['max.message.bytes'] = String(4 * DEFAULT_MAX_MESSAGE_BYTES);
  return config;
}
