/** How to reach Kafka and the registry, and as whom: from the settings that every service has. */
import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import type { CommonConfig } from '@onemall/service-kit';
import { ConfigError } from '@onemall/service-kit';
import type { SASLOptions } from 'kafkajs';
import type { KafkaAccess, KafkaIoOptions } from './ports.ts';

/** @throws ConfigError when the file of the certificate authority cannot be read */
export function kafkaSettings(
  config: CommonConfig,
): Pick<KafkaIoOptions, 'brokers' | 'registryUrl' | 'namespace' | 'access'> {
  const { kafkaBrokers, registryUrl, namespace, kafkaTls, kafkaTlsCaFile } = config;
  const { kafkaSaslMechanism, kafkaSaslUsername, kafkaSaslPassword, registryUsername, registryPassword } =
    config;
  const access: KafkaAccess = {};
  if (kafkaTls) access.tls = kafkaTlsCaFile ? { ca: readAuthority(kafkaTlsCaFile) } : {};
  if (kafkaSaslMechanism)
    access.sasl = { mechanism: kafkaSaslMechanism, username: kafkaSaslUsername, password: kafkaSaslPassword };
  if (registryUsername) access.registry = { username: registryUsername, password: registryPassword };
  return { brokers: kafkaBrokers, registryUrl, namespace, access };
}

/** As kafkajs takes it. */
export function connectionSecurity({ tls, sasl }: KafkaAccess): {
  ssl?: ConnectionOptions;
  sasl?: SASLOptions;
} {
  return { ...(tls ? { ssl: tls } : {}), ...(sasl ? { sasl } : {}) };
}

function readAuthority(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ConfigError(
      `kafkaTlsCaFile (ONEMALL_KAFKA_TLS_CA_FILE) names ${file}, which cannot be read: ${(cause as Error).message}`,
      { cause },
    );
  }
}
