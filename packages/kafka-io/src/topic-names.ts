/** Topics without and with namespace. */
import { physicalTopic, type TopicName } from '@onemall/contracts';

const EXTERNAL = 'external:';

/**
 * A topic of others, outside the namespace and the topic table. Readers, offsets and dead letters take it; it has no
 * schema here, so its values are decoded by the caller.
 */
export const externalTopic = (name: string): TopicName => `${EXTERNAL}${name}` as TopicName;

export class TopicNames {
  readonly #namespace: string;
  constructor(namespace: string) {
    this.#namespace = namespace;
  }
  physical(topic: TopicName): string {
    if (topic.startsWith(EXTERNAL)) return topic.slice(EXTERNAL.length);
    return physicalTopic(this.#namespace, topic);
  }
  /** The name without namespace of a topic that this namespace holds; any other is external. */
  logical(physical: string): TopicName {
    if (!physical.startsWith(`${this.#namespace}.`)) return externalTopic(physical);
    return physical.slice(this.#namespace.length + 1) as TopicName;
  }
}
