/**
 * The closed loop on real processes: broker, registry, live-sid-updater, sample-assembler, metrics-sink, one retriever for each
 * policy, and the simulator, which asks them. The policies are those of a finished RL run, with its codebooks; the world is the
 * run's, its traffic another.
 *
 *   warm-up    the logging policy serves; users get histories, items a popularity
 *   arms       each request goes to one of the policies by the hash of its id
 *   cool-down  the logging policy again, until the windows of the arms' exposures have closed
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { addressFile } from '@onemall/metrics-sink/src/stages/address-file.ts';
import type { StageStatus } from '@onemall/service-kit';
import { Guardian, REPOSITORY_ROOT, type StackAddresses, startLocalStack } from '@onemall/stack';
import type { EvaluationPlan } from '../world/log/plan.ts';
import { openStore } from '../world/samples/prepare-world.ts';
import { type ArmRow, armReport } from './arm-report.ts';
import { LoopProcesses } from './loop-processes.ts';
import type { LoopSettings } from './loop-settings.ts';
import { publishRun } from './publish-run.ts';

export interface ClosedLoop {
  plan: EvaluationPlan;
  /** Folder of the RL run. */
  runFolder: string;
  /** Everything of this loop; must not be there yet. `npm run query` finds the database in it. */
  out: string;
  /** base first: what the others are compared with. */
  arms: readonly string[];
  /** Requests of the span in which arms answer theirs. */
  requests: number;
  /** Of each arm in them; the logging policy serves the rest, so that histories and popularity do not come from the arms alone. */
  share: number;
  /** Requests before them. */
  warmUp: number;
  beam: number;
  /** A stack that is there already; one of its own where absent. */
  stack?: StackAddresses;
  print: (line: string) => void;
}

const NAMESPACE = 'closed-loop';
const GRACE_MS = 1_000;
/** Records of one request with what follows from it and the room changes beside it, more than on average. */
const EVENTS_PER_REQUEST = 18;
const POLL_MS = 2_000;
/** Without a new closed request for so long nothing more is waited for. */
const STUCK_MS = 300_000;

/** @returns the report in Markdown @throws Error when the folder is taken or holds no finished run */
export async function runClosedLoop(loop: ClosedLoop): Promise<string> {
  const { out, print } = loop;
  if (existsSync(out)) throw new Error(`${out} is there already: name another folder with --out`);
  const store = openStore({ folder: loop.runFolder, plan: loop.plan });
  const guardian = new Guardian();
  mkdirSync(out, { recursive: true });
  const own = loop.stack
    ? undefined
    : await startLocalStack({ dataDir: out, guardian, redis: false, onProgress: print });
  const processes = new LoopProcesses(path.join(out, 'logs'), guardian);
  try {
    const addresses = loop.stack ?? own!;
    const settings = writeSettings(loop, addresses);
    const published = await publishRun(store, settings, loop.arms);
    return await play(loop, processes, settings, published);
  } finally {
    await processes.stop();
    await own?.stop();
    guardian.close();
  }
}

function writeSettings({ plan, out, beam }: ClosedLoop, stack: StackAddresses): LoopSettings {
  const folder = path.resolve(out);
  const world = path.join(folder, 'world.json');
  writeFileSync(world, JSON.stringify(plan.spec));
  const windows = Object.values(plan.scenarios).flatMap((s) => [s.clickWindowMs, s.buyWindowMs]);
  const retention = {
    largestWindowMs: Math.max(...windows),
    graceMs: GRACE_MS,
    longestOutageMs: 86_400_000,
  };
  const settings: LoopSettings = {
    file: path.join(folder, 'config.json'),
    brokers: stack.brokers,
    registryUrl: stack.registryUrl,
    // a stack that others use, too, has topics of earlier loops
    namespace: `${NAMESPACE}-${path.basename(folder)}`.replaceAll(/[^a-z0-9-]/gi, '-'),
    artifacts: path.join(folder, 'artifacts'),
    clickhouse: path.join(folder, 'clickhouse'),
    scenarios: plan.scenarios,
    retention,
  };
  const config = {
    namespace: settings.namespace,
    kafkaBrokers: stack.brokers,
    registryUrl: stack.registryUrl,
    dataDir: folder,
    artifactsUri: settings.artifacts,
    clickhousePath: settings.clickhouse,
    scenarios: plan.scenarios,
    graceMs: retention.graceMs,
    longestOutageMs: retention.longestOutageMs,
    seed: plan.seed,
    simulatorWorld: world,
    simulatorRate: plan.eventsPerS,
    simulatorTimes: 'virtual',
    simulatorStartTimeMs: plan.startMs,
    simulatorLateShare: 0,
    // event time stands still while a policy thinks: the clock of the wall must not move it
    maxDelayMs: 3_600_000,
    simulatorArmTimeoutMs: 30_000,
    followNewCodebooks: false,
    // rooms change faster than the wall's clock tells: event time runs ahead of it
    flapHoldMs: 0,
    retrieverPort: 0,
    retrieveBeam: beam,
    retrieveConcurrency: 1,
    retrieveTimeoutMs: 30_000,
    itemOrder: 'share',
  };
  writeFileSync(settings.file, `${JSON.stringify(config, null, 1)}\n`);
  return settings;
}

async function play(
  loop: ClosedLoop,
  processes: LoopProcesses,
  settings: LoopSettings,
  published: { policies: ReadonlyMap<string, string>; items: number },
): Promise<string> {
  const { plan, print, arms, warmUp, requests, share } = loop;
  const env = { ONEMALL_CONFIG: settings.file };
  const updater = await processes.start('live-sid-updater', env);

  // the first start publishes the catalogue and its rooms; the traffic of the second is none that a model was trained on
  const catalogue = await processes.start('simulator', { ...env, ONEMALL_SIMULATOR_MAX_EVENTS: '1' });
  await processes.until('the catalogue', async () => (await gauges(catalogue)).done === 1);
  await processes.end(catalogue);
  print(`waiting for the SIDs of ${published.items} items`);
  await processes.until('the SIDs of the catalogue', async () => {
    const values = await gauges(updater);
    return (values.item_sids ?? 0) >= published.items && values.items_waiting === 0;
  });

  await processes.start('sample-assembler', env);
  await processes.start('metrics-sink', env);
  const urls = new Map<string, string>();
  for (const arm of arms) {
    const retriever = await processes.start('retriever', {
      ...env,
      ONEMALL_PINNED_POLICY: published.policies.get(arm)!,
    });
    const { retriever_port: port } = await gauges(retriever);
    urls.set(arm, `http://127.0.0.1:${port}/retrieve`);
  }
  const coolDownEvents = Math.ceil((2 * settings.retention.largestWindowMs * plan.eventsPerS) / 1000);
  const simulator = await processes.start('simulator', {
    ...env,
    ONEMALL_SIMULATOR_ARMS: JSON.stringify(arms.map((name) => ({ name, url: urls.get(name), share }))),
    ONEMALL_SIMULATOR_ARMS_FROM: `${warmUp}`,
    ONEMALL_SIMULATOR_ARMS_REQUESTS: `${requests}`,
    ONEMALL_SIMULATOR_MAX_EVENTS: `${(warmUp + requests) * EVENTS_PER_REQUEST + coolDownEvents}`,
  });
  const answered = await followTraffic(processes, simulator, loop);
  const closed = await untilClosed(processes, settings, answered.shown);
  print(`${closed} of ${answered.shown} requests of arms have closed`);
  return armReport({ ...loop, ...answered, closed }, await askArms(settings));
}

type LoopService = Awaited<ReturnType<LoopProcesses['start']>>;

const gauges = async (service: LoopService): Promise<Record<string, number>> =>
  (await service.status<StageStatus>())?.values ?? {};

async function followTraffic(
  processes: LoopProcesses,
  simulator: LoopService,
  { requests, arms, share, print }: ClosedLoop,
): Promise<{ shown: number; lost: number }> {
  const expected = Math.round(requests * share * arms.length);
  let told = 0;
  for (;;) {
    await delay(POLL_MS);
    processes.check();
    const values = await gauges(simulator);
    const shown = values.requests_of_arms ?? 0;
    const lost = values.requests_of_arms_without_answer ?? 0;
    if (shown + lost >= told + expected / 10) {
      told = shown + lost;
      print(`${told} of about ${expected} requests answered by arms`);
    }
    if (values.done === 1) return { shown, lost };
  }
}

/** Waits until the exposures of all requests of arms have left the join and are in the database. */
async function untilClosed(
  processes: LoopProcesses,
  settings: LoopSettings,
  requests: number,
): Promise<number> {
  const query = `SELECT toUInt32(uniqExact(exposure.requestId)) AS n FROM {database}.training_samples WHERE kind = 'FINAL' AND position(exposure.requestId, '@') > 0`;
  let closed = 0;
  let sinceMs = performance.now();
  while (closed < requests && performance.now() - sinceMs < STUCK_MS) {
    await delay(POLL_MS);
    processes.check();
    const [row] = (await askSink(settings, query)) as [{ n: number }];
    if (row.n > closed) sinceMs = performance.now();
    closed = row.n;
  }
  return closed;
}

/** What `npm run query -- policy-arms` gives. */
const askArms = async (settings: LoopSettings): Promise<ArmRow[]> =>
  (await askSink(
    settings,
    readFileSync(path.join(REPOSITORY_ROOT, 'queries', 'policy-arms.sql'), 'utf8'),
  )) as ArmRow[];

/** Rows of a query to the running sink. */
async function askSink({ clickhouse }: LoopSettings, query: string): Promise<unknown[]> {
  const { sqlUrl } = JSON.parse(readFileSync(addressFile(clickhouse), 'utf8')) as { sqlUrl: string };
  const response = await fetch(sqlUrl, {
    method: 'POST',
    body: JSON.stringify({ query, format: 'JSONEachRow' }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`The sink refused ${query}: ${text}`);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}
