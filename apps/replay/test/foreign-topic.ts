/** A topic as another team would have it: made with plain clients, outside the namespace. */
import { Kafka, logLevel } from 'kafkajs';

const client = (brokers: string): Kafka =>
  new Kafka({ clientId: 'theirs', brokers: brokers.split(','), logLevel: logLevel.NOTHING });

export async function createTopic(brokers: string, topic: string, numPartitions: number): Promise<void> {
  const admin = client(brokers).admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true });
  await admin.disconnect();
}

export async function produce(
  brokers: string,
  topic: string,
  messages: readonly { key: string | null; value: Buffer }[],
): Promise<void> {
  const producer = client(brokers).producer();
  await producer.connect();
  await producer.send({ topic, messages: [...messages] });
  await producer.disconnect();
}

/** @returns the schema id */
export async function registerSchema(registryUrl: string, subject: string, schema: unknown): Promise<number> {
  const answer = await fetch(`${registryUrl}/subjects/${subject}/versions`, {
    method: 'POST',
    headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
    body: JSON.stringify({ schema: JSON.stringify(schema) }),
  });
  if (!answer.ok) throw new Error(`The registry answered ${answer.status}: ${await answer.text()}`);
  return ((await answer.json()) as { id: number }).id;
}
