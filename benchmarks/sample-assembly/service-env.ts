import type { TestStack } from '@onemall/testkit';

/** What both runs of the service have in common. */
export const serviceEnv = (
  stack: TestStack,
  namespace: string,
  artifacts: string,
): Record<string, string> => ({
  ONEMALL_KAFKA_BROKERS: stack.brokers,
  ONEMALL_REGISTRY_URL: stack.registryUrl,
  ONEMALL_NAMESPACE: namespace,
  ONEMALL_ARTIFACTS_URI: artifacts,
  ONEMALL_EMIT: 'final',
  ONEMALL_COMMIT_INTERVAL_MS: '100',
});
