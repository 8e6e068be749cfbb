/** Kafka's and the registry's jars, fetched once by Maven into a folder that all checkouts of one user share. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { MissingPrerequisiteError } from './prerequisites.ts';

const POM = path.join(import.meta.dirname, '..', 'pom.xml');
const PLUGIN = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1';

function versionOf(property: string): string {
  const match = new RegExp(`<${property}>([^<]+)</${property}>`).exec(readFileSync(POM, 'utf8'));
  if (!match) throw new Error(`${POM} has no <${property}>`);
  return match[1]!;
}
export const KAFKA_VERSION = versionOf('kafka.version');
export const REGISTRY_VERSION = versionOf('apicurio.version');

/** ONEMALL_CACHE_DIR, else the user's cache folder: outlives `npm run reset` and a fresh clone. */
export function cacheDir(env: NodeJS.ProcessEnv = process.env): string {
  if (env.ONEMALL_CACHE_DIR) return path.resolve(env.ONEMALL_CACHE_DIR);
  return path.join(env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'onemall-pipeline');
}

export interface Downloads {
  kafkaDir: string;
  registryDir: string;
}
export function downloadsIn(folder: string): Downloads {
  return {
    kafkaDir: path.join(folder, `kafka-${KAFKA_VERSION}`),
    registryDir: path.join(folder, `apicurio-${REGISTRY_VERSION}`),
  };
}
export const areDownloaded = (d: Downloads): boolean => existsSync(d.kafkaDir) && existsSync(d.registryDir);

/** Fetches what is not there. Each folder appears at once when it is complete, so that two starts may do it side by side. */
export async function download(
  mvn: string | null,
  onProgress: (line: string) => void = () => {},
  folder = cacheDir(),
): Promise<Downloads> {
  const wanted = downloadsIn(folder);
  if (areDownloaded(wanted)) return wanted;
  if (!mvn)
    throw new MissingPrerequisiteError('Maven (mvn) is needed once, to download Kafka and the registry.');
  await mkdir(folder, { recursive: true });
  await atOnce(wanted.kafkaDir, async (target) => {
    onProgress(`downloading Kafka ${KAFKA_VERSION} (44 MB)`);
    await maven(mvn, folder, [
      '-f',
      POM,
      `${PLUGIN}:copy-dependencies`,
      '-DincludeScope=runtime',
      `-DoutputDirectory=${target}`,
    ]);
  });
  await atOnce(wanted.registryDir, async (target) => {
    onProgress(`downloading Apicurio Registry ${REGISTRY_VERSION} (159 MB)`);
    await mkdir(target, { recursive: true });
    const artifact = `io.apicurio:apicurio-registry-app:${REGISTRY_VERSION}:tar.gz:all`;
    await maven(mvn, folder, [`${PLUGIN}:copy`, `-Dartifact=${artifact}`, `-DoutputDirectory=${target}`]);
    const archive = path.join(target, `apicurio-registry-app-${REGISTRY_VERSION}-all.tar.gz`);
    await run('tar', ['xzf', archive, '-C', target], folder);
    await rm(archive);
  });
  return wanted;
}

async function atOnce(target: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  if (existsSync(target)) return;
  const temporary = `${target}.${process.pid}.tmp`;
  await rm(temporary, { recursive: true, force: true });
  try {
    await fill(temporary);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    if (!existsSync(target)) throw error;
  }
}

const maven = (mvn: string, cwd: string, args: string[]): Promise<void> =>
  run(mvn, ['-B', '-ntp', '-q', ...args], cwd);

function run(command: string, args: string[], cwd: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (bytes: Buffer) => {
        output = (output + bytes.toString()).slice(-4000);
      });
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0
        ? resolve()
        : reject(
            new Error(
              `${path.basename(command)} failed with exit code ${code}. If the download was cut off, run the command again; behind a proxy or mirror, set it in Maven's settings.xml.\n${output.trim()}`,
            ),
          ),
    );
  });
}
