/** What the host must bring: Java, Maven for the first download, Redis for the jobs. */
import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';

/** The registry's class files need it; Kafka alone would run on 17. */
export const MIN_JAVA = 21;

export interface JavaInstallation {
  executable: string;
  major: number;
  version: string;
}

export class MissingPrerequisiteError extends Error {
  override name = 'MissingPrerequisiteError';
}

/** Full path of a command, or null. */
export function findCommand(name: string, env: NodeJS.ProcessEnv = process.env): string | null {
  for (const folder of (env.PATH ?? '').split(path.delimiter).filter(Boolean)) {
    const file = path.join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not in this folder: the next one is tried.
    }
  }
  return null;
}

/** Java installations from JAVA_HOME, PATH and the usual folders, newest first. */
export function findJava(env: NodeJS.ProcessEnv = process.env): JavaInstallation[] {
  const onPath = findCommand('java', env);
  const homes = [
    ...(env.ONEMALL_JAVA_HOME ? [env.ONEMALL_JAVA_HOME] : []),
    ...(env.JAVA_HOME ? [env.JAVA_HOME] : []),
    ...(onPath ? [path.dirname(path.dirname(realpathSync(onPath)))] : []),
    ...subfolders('/usr/lib/jvm'),
    ...subfolders('/opt/java'),
    ...subfolders(path.join(homedir(), '.sdkman/candidates/java')),
    ...subfolders('/Library/Java/JavaVirtualMachines').map((f) => path.join(f, 'Contents/Home')),
  ];
  const found = new Map<string, JavaInstallation>();
  for (const home of homes) {
    const executable = path.join(home, 'bin', 'java');
    if (!existsSync(executable)) continue;
    const key = realpathSync(executable);
    if (found.has(key)) continue;
    const version = javaVersion(home, executable);
    if (version) found.set(key, { executable, version, major: majorOf(version) });
  }
  const preferred = env.ONEMALL_JAVA_HOME ? path.join(env.ONEMALL_JAVA_HOME, 'bin', 'java') : '';
  return [...found.values()].sort(
    (a, b) => Number(b.executable === preferred) - Number(a.executable === preferred) || b.major - a.major,
  );
}

/** `1.8.0_402` -> 8, `25.0.3` -> 25 */
export const majorOf = (version: string): number =>
  Number(version.replace(/^1\./, '').match(/^\d+/)?.[0] ?? 0);

function javaVersion(home: string, executable: string): string | null {
  try {
    const fromRelease = /^JAVA_VERSION="([^"]+)"/m.exec(readFileSync(path.join(home, 'release'), 'utf8'));
    if (fromRelease) return fromRelease[1]!;
  } catch {
    // Some packages leave the release file out; then the program itself is asked.
  }
  const { stderr } = spawnSync(executable, ['-version'], { encoding: 'utf8' });
  return /version "([^"]+)"/.exec(stderr ?? '')?.[1] ?? null;
}

function subfolders(folder: string): string[] {
  try {
    return readdirSync(folder).map((name) => path.join(folder, name));
  } catch {
    return [];
  }
}

export interface Prerequisites {
  java: JavaInstallation | null;
  maven: string | null;
  redis: string | null;
  docker: boolean;
  /** One line for each thing that is missing and needed, with what to install. */
  missing: string[];
}

/** @param downloaded whether Kafka's and the registry's jars are there already, so that Maven is not needed */
export function checkPrerequisites(downloaded: boolean, env: NodeJS.ProcessEnv = process.env): Prerequisites {
  const javas = findJava(env);
  const java = javas.find((j) => j.major >= MIN_JAVA) ?? null;
  const maven = findCommand('mvn', env);
  const docker = findCommand('docker', env) !== null;
  return {
    java,
    maven,
    redis: findCommand('redis-server', env),
    docker,
    missing: missingLines({ java, foundOlder: javas[0]?.version ?? null, maven, downloaded, docker }),
  };
}

/** The lines a newcomer reads; pure, so that each is tested. */
export function missingLines(found: {
  java: JavaInstallation | null;
  foundOlder: string | null;
  maven: string | null;
  downloaded: boolean;
  docker: boolean;
}): string[] {
  const lines: string[] = [];
  if (!found.java) {
    const older = found.foundOlder ? ` (found only ${found.foundOlder})` : '';
    lines.push(
      `Java ${MIN_JAVA} or newer is missing${older}: install it (Debian, Ubuntu: apt-get install openjdk-${MIN_JAVA}-jre-headless; macOS: brew install openjdk) or set JAVA_HOME to one.`,
    );
  }
  if (!found.maven && !found.downloaded)
    lines.push(
      'Maven is missing; it downloads Kafka and the schema registry the first time: install it (Debian, Ubuntu: apt-get install maven; macOS: brew install maven).',
    );
  if (lines.length > 0 && found.docker)
    lines.push(
      'Docker is here, so you can run `docker compose up` instead; it needs neither Java nor Maven.',
    );
  return lines;
}

/**
 * Path of redis-server; installs it through apt-get where that is allowed (as root, with ONEMALL_INSTALL=1 or CI=true).
 * null means that the jobs stay off.
 */
export function findOrInstallRedis(
  onProgress: (line: string) => void = () => {},
  env: NodeJS.ProcessEnv = process.env,
): string | null {
  const found = findCommand('redis-server', env);
  if (found) return found;
  const allowed = env.ONEMALL_INSTALL === '1' || env.CI === 'true';
  if (!allowed || process.getuid?.() !== 0 || !findCommand('apt-get', env)) return null;
  onProgress('installing redis-server through apt-get');
  const quiet = { stdio: 'ignore', env: { ...env, DEBIAN_FRONTEND: 'noninteractive' } } as const;
  try {
    // policy-rc.d semantics differ between images; --no-install-recommends and no service start keep it to the binary.
    execFileSync('apt-get', ['update', '-qq'], quiet);
    execFileSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'redis-server'], {
      ...quiet,
      env: { ...quiet.env, RUNLEVEL: '1' },
    });
  } catch (error) {
    onProgress(`apt-get could not install redis-server (${(error as Error).message}); jobs stay off`);
  }
  return findCommand('redis-server', env);
}
