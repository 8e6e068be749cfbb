/** Topics without and with namespace. */
import { physicalTopic, type TopicName } from '@onemall/contracts';

export class TopicNames {
  readonly #namespace: string;
  constructor(namespace: string) {
    this.#namespace = namespace;
  }
  physical(topic: TopicName): string {
    return physicalTopic(this.#namespace, topic);
  }
  /** The name without namespace of a topic that this namespace holds. */
  logical(physical: string): TopicName {
    return physical.slice(this.#namespace.length + 1) as TopicName;
  }
}
