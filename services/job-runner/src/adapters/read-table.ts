import type { TopicName, TopicValues } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';

/** Newest value by key of a compacted topic, as of now. */
export async function readTable<T extends TopicName>(
  kafka: KafkaIo,
  topic: T,
): Promise<Map<string, TopicValues[T]>> {
  const values = new Map<string, TopicValues[T]>();
  const failed = Promise.withResolvers<never>();
  const table = await kafka.openTable({
    topic,
    onRecord: ({ key, value }) => {
      if (value === null) values.delete(key);
      else values.set(key, value);
    },
    onError: failed.reject,
  });
  try {
    await Promise.race([table.readToEnd(), failed.promise]);
  } finally {
    await table.close();
  }
  return values;
}
