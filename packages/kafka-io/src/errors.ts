/** Typed errors of this package; each message says what was expected, what came and what to do. */
import type { TopicName } from '@onemall/contracts';

export class KafkaIoError extends Error {
  override name = 'KafkaIoError';
}
export class OffsetOutOfRangeError extends KafkaIoError {
  override name = 'OffsetOutOfRangeError';
  /** The one partition whose position is not in its log: the others of the reader are sound. */
  readonly at: { readonly topic: TopicName; readonly partition: number } | undefined;
  constructor(message: string, at?: OffsetOutOfRangeError['at'], options?: ErrorOptions) {
    super(message, options);
    this.at = at;
  }
}
export class TransactionFailedError extends KafkaIoError {
  override name = 'TransactionFailedError';
}
export class FencedError extends TransactionFailedError {
  override name = 'FencedError';
}
/** Bytes of a fetched batch that cannot be what a producer wrote. */
export class CorruptBatchError extends KafkaIoError {
  override name = 'CorruptBatchError';
}
export class TopicRefusedError extends KafkaIoError {
  override name = 'TopicRefusedError';
}
/** The registry holds a schema that this build's schema does not fit. */
export class SchemaRefusedError extends KafkaIoError {
  override name = 'SchemaRefusedError';
}
/** The broker takes no record of this size. */
export class RecordTooLargeError extends KafkaIoError {
  override name = 'RecordTooLargeError';
}
export class TopicMissingError extends KafkaIoError {
  override name = 'TopicMissingError';
  constructor(topics: readonly string[], cause: unknown) {
    super(
      `At least one of these topics does not exist: ${topics.join(', ')}. Create them with createTopics or the namespace's set-up, or check the configured namespace`,
      { cause },
    );
  }
}
