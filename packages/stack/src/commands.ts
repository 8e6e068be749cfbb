/** The command lines of Kafka, the registry and Redis. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Downloads } from './downloads.ts';
import type { JavaInstallation } from './prerequisites.ts';

export interface StackPorts {
  kafka: number;
  controller: number;
  registry: number;
  registryAdmin: number;
  redis: number;
}

export interface CommandLine {
  command: string;
  args: string[];
  /** Called after a clean stop. */
  afterStop?: () => void;
}

/**
 * A JVM that loads its classes from an archive made at the end of an earlier run: starts 1.5 to 2 times as fast.
 * The archive is written beside its name and renamed after a clean stop, since two stacks may do so at once.
 */
function jvm(java: JavaInstallation, name: string, heap: string, cache: string): CommandLine {
  const archive = path.join(cache, `${name}-java${java.version}.${java.major >= 25 ? 'aot' : 'jsa'}`);
  const [use, make, quiet] =
    java.major >= 25
      ? ['-XX:AOTCache=', '-XX:AOTCacheOutput=', '-Xlog:aot*=off']
      : ['-XX:SharedArchiveFile=', '-XX:ArchiveClassesAtExit=', '-Xlog:cds*=off'];
  const temporary = `${archive}.${process.pid}.tmp`;
  const have = existsSync(archive);
  return {
    command: java.executable,
    args: [`-Xmx${heap}`, have ? use + archive : make + temporary, quiet, '-XX:+ExitOnOutOfMemoryError'],
    afterStop: () => {
      if (!have && existsSync(temporary)) renameSync(temporary, archive);
    },
  };
}

export interface CommandContext {
  java: JavaInstallation;
  downloads: Downloads;
  cache: string;
  dataDir: string;
  runDir: string;
  ports: StackPorts;
}

export function kafkaCommand(c: CommandContext, heap: string, moreProperties = ''): CommandLine {
  const properties = path.join(c.runDir, 'kafka.properties');
  const logging = path.join(c.runDir, 'log4j2.yaml');
  const classes = path.join(c.downloads.kafkaDir, '*');
  const logDir = path.join(c.dataDir, 'kafka');
  writeFileSync(properties, kafkaProperties(c.ports, logDir) + moreProperties);
  writeFileSync(logging, LOG4J);
  if (!existsSync(path.join(logDir, 'meta.properties'))) {
    // Kafka's own ids are 16 bytes in base64url; the first character must not look like an option.
    const id = `A${randomBytes(16).toString('base64url').slice(1, 22)}`;
    execFileSync(
      c.java.executable,
      [
        '-XX:TieredStopAtLevel=1',
        '-cp',
        classes,
        'kafka.tools.StorageTool',
        'format',
        '-t',
        id,
        '-c',
        properties,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'], cwd: c.runDir },
    );
  }
  const base = jvm(c.java, path.basename(c.downloads.kafkaDir), heap, c.cache);
  return {
    ...base,
    args: [...base.args, `-Dlog4j2.configurationFile=${logging}`, '-cp', classes, 'kafka.Kafka', properties],
  };
}

/** A voter list in the file (not in the metadata log) lets the ports differ from one start to the next. */
export const kafkaProperties = (ports: StackPorts, logDir: string): string => `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${ports.controller}
listeners=PLAINTEXT://127.0.0.1:${ports.kafka},CONTROLLER://127.0.0.1:${ports.controller}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports.kafka}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=${logDir}
auto.create.topics.enable=false
num.partitions=4
num.network.threads=2
num.io.threads=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
log.segment.bytes=134217728
log.index.size.max.bytes=1048576
`;

const LOG4J = `Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %m (%c{1})%n"}}
  Loggers:
    Root: {level: INFO, AppenderRef: [{ref: out}]}
`;

export function registryCommand(c: CommandContext, heap: string): CommandLine {
  const base = jvm(c.java, path.basename(c.downloads.registryDir), heap, c.cache);
  return {
    ...base,
    args: [
      ...base.args,
      '-Dquarkus.http.host=127.0.0.1',
      `-Dquarkus.http.port=${c.ports.registry}`,
      '-Dquarkus.management.host=127.0.0.1',
      `-Dquarkus.management.port=${c.ports.registryAdmin}`,
      // A file survives restarts (without this line schemas live in memory), and without the delay of half a second
      // also a SIGKILL: records of a schema whose id was lost could not be read any more.
      `-Dapicurio.datasource.url=jdbc:h2:file:${path.join(c.dataDir, 'registry', 'registry')};WRITE_DELAY=0`,
      '-Dapicurio.datasource.jdbc.initial-size=1',
      '-Dapicurio.datasource.jdbc.min-size=1',
      '-Dapicurio.datasource.jdbc.max-size=8',
      '-jar',
      path.join(c.downloads.registryDir, 'quarkus-run.jar'),
    ],
  };
}

export function redisCommand(c: CommandContext, executable: string): CommandLine {
  const dir = path.join(c.dataDir, 'redis');
  return {
    command: executable,
    args: [
      '--bind',
      '127.0.0.1',
      '--port',
      String(c.ports.redis),
      '--dir',
      dir,
      '--save',
      '',
      '--appendonly',
      'yes',
      '--maxmemory-policy',
      'noeviction',
    ],
  };
}
