import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Guardian, type LocalStack, type StackAddresses, startLocalStack } from '@onemall/stack';

export interface TestStack extends StackAddresses {
  /** A namespace that no other test uses. */
  newNamespace(): string;
  /** Ends the broker and starts it again; null on a shared stack, which others use. */
  restartKafka: LocalStack['restartKafka'] | null;
  /** Stops the processes and removes their folder; does nothing to a shared stack. */
  stop(): Promise<void>;
}

/**
 * Real Kafka and registry (and Redis where asked and found) in a temporary folder. With ONEMALL_TEST_STACK set to the
 * JSON of `StackAddresses`, tests share that stack instead: `npm test` starts one for all files.
 * @param options.own never shared, for tests that restart the broker
 */
export async function startTestStack(options: { redis?: boolean; own?: boolean } = {}): Promise<TestStack> {
  const shared = options.own ? undefined : process.env.ONEMALL_TEST_STACK;
  if (shared) {
    const addresses = JSON.parse(shared) as StackAddresses;
    if (!addresses.brokers || !addresses.registryUrl)
      throw new Error(
        `ONEMALL_TEST_STACK must be JSON with brokers, registryUrl and redisUrl, got ${shared}`,
      );
    return { ...addresses, newNamespace, restartKafka: null, stop: async () => {} };
  }
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-test-'));
  const guardian = new Guardian();
  guardian.removeFolder(folder);
  let stack: LocalStack | undefined;
  const stop = async (): Promise<void> => {
    await stack?.stop();
    await rm(folder, { recursive: true, force: true });
    guardian.close();
  };
  try {
    stack = await startLocalStack({ dataDir: folder, guardian, redis: options.redis ?? false });
  } catch (error) {
    await stop();
    throw error;
  }
  const { brokers, registryUrl, redisUrl } = stack;
  return { brokers, registryUrl, redisUrl, newNamespace, restartKafka: stack.restartKafka, stop };
}

const newNamespace = (): string => `test-${randomBytes(6).toString('hex')}`;
