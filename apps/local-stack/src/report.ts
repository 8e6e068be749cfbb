/** The report of a run and the bars it must hold; pure. */
import type { LossPoint, RunHistory } from './run-history.ts';

/** Name of the bar that fails when a service, Kafka, the registry or Redis ended for good. */
export const STAYS_DOWN = 'a service that stays down';

export interface Bar {
  name: string;
  value: number | string | boolean | null;
  bar: string;
  ok: boolean;
}
export interface StageReport {
  in: number;
  out: number;
  ratePerS: number;
  p50Ms: number | null;
  p99Ms: number | null;
  lag: number | null;
}
export interface RunReport {
  ok: boolean;
  source: string;
  seconds: number;
  stages: Record<string, StageReport>;
  deadLetters: number;
  training: {
    steps: number;
    lossFirst: number | null;
    lossLast: number | null;
    sidAccuracy: number[];
    losses: LossPoint[];
  };
  peakRssBytes: Record<string, number>;
  /** What a reader must know of the source. */
  notes: string[];
  bars: Bar[];
  /** The whole verdict on the samples. */
  oracle: OracleVerdict | null;
}
/** What services/sample-assembler/oracle/verify.ts prints. */
export interface OracleVerdict {
  ok: boolean;
  /** Input records by what became of them; wrong are those with no fate or several. */
  fates?: { wrong: number; [fate: string]: number };
  /** Numbers such as missing, extra, different; or `failure`, why there is no verdict. */
  [figure: string]: unknown;
}

export interface ReportInput {
  source: string;
  history: RunHistory;
  endedMs: number;
  /** Names of the stages that must have written something, and those that take records but need not. */
  mustProduce: readonly string[];
  /** When the user asked for the run, before anything was installed or started. */
  askedMs: number;
  /** Something had to be downloaded or installed first. */
  wasCold: boolean;
  /** Records in the topic dead-letters that this run added. */
  deadLetters: number;
  /** null where the assembler is not part of the run, and in a run that is ended by hand. */
  oracle: OracleVerdict | null;
  crashes: number;
  /** A service that would not stay up, and why. */
  gaveUp: string | null;
  /** Ended by hand before the end of --for: what follows from counts and samples was not awaited. */
  interrupted: boolean;
}

const COLD_BAR_S = 240;
const WARM_BAR_S = 30;
/** The loss of single moments jumps: first and last are means over this share of the points. */
const LOSS_SHARE = 0.1;

export function buildReport(input: ReportInput): RunReport {
  const { history } = input;
  const views = history.views().filter((v) => v.role !== 'view');
  const end = history.end ?? { atMs: input.endedMs, views };
  const seconds = (end.atMs - history.beganMs) / 1000;
  const stages: Record<string, StageReport> = {};
  for (const v of views) {
    const atEnd = end.views.find((e) => e.name === v.name) ?? v;
    stages[v.name] = {
      in: v.in,
      out: v.out,
      ratePerS: round((atEnd.in || atEnd.out) / seconds),
      p50Ms: roundOrNull(v.p50Ms),
      p99Ms: roundOrNull(v.p99Ms),
      lag: atEnd.lag,
    };
  }
  const deadLetters = Math.max(
    input.deadLetters,
    views.reduce((sum, v) => sum + v.deadLetters, 0),
  );
  const trainer = history.view('trainer-retriever');
  const training = {
    steps: trainer?.values.training_steps ?? 0,
    ...firstAndLastLoss(history.losses, trainer?.values ?? {}),
    sidAccuracy: [1, 2, 3]
      .map((level) => trainer?.values[`sid_accuracy_${level}`])
      .filter((a) => a !== undefined),
    losses: history.losses,
  };
  const bars = [
    producedBar(input, stages),
    exactly('dead letters', deadLetters, 0),
    exactly('crashes', input.crashes, 0),
    ...(input.gaveUp ? [{ name: STAYS_DOWN, value: input.gaveUp, bar: 'none', ok: false }] : []),
    ...(input.interrupted
      ? [{ name: 'interrupted', value: true, bar: 'runs to the end of --for', ok: false }]
      : []),
    ...(trainer ? [firstSampleBar(input), lossBar(training)] : []),
    ...(input.oracle ? [oracleBar(input.oracle)] : []),
  ];
  return {
    ok: bars.every((b) => b.ok),
    source: input.source,
    seconds: round(seconds),
    stages,
    deadLetters,
    training,
    peakRssBytes: Object.fromEntries(history.peakRssBytes),
    notes: sourceNotes(history.view('replay')?.values ?? {}),
    bars,
    oracle: input.oracle,
  };
}

/** What the replay counted that changes how the figures must be read. */
function sourceNotes(values: Record<string, number>): string[] {
  const notes: string[] = [];
  const { synthetic_exposures: exposures, synthetic_negatives: negatives, bad_rows: bad, done } = values;
  if (exposures)
    notes.push(
      `This log has no exposures: ${exposures} were made up, one per action and ${negatives ?? 0} seeded negatives, so label rates and ranker figures are those of synthetic negatives.`,
    );
  if (bad) notes.push(`${bad} rows of the log were bad and left out; the replay's log file names them.`);
  if (done) notes.push('The log came to its end during the run.');
  return notes;
}

function producedBar(input: ReportInput, stages: Record<string, StageReport>): Bar {
  const silent = input.mustProduce.filter((name) => !stages[name] || stages[name].out === 0);
  return {
    name: 'stages without output',
    value: silent.length > 0 ? silent.join(', ') : 0,
    bar: 'none',
    ok: silent.length === 0,
  };
}

function firstSampleBar(input: ReportInput): Bar {
  const limitS = input.wasCold ? COLD_BAR_S : WARM_BAR_S;
  const trainedMs = input.history.firstTrainedMs;
  const value = trainedMs === null ? null : round((trainedMs - input.askedMs) / 1000);
  return {
    name: `seconds from a ${input.wasCold ? 'cold' : 'warm'} start to the first trained sample`,
    value,
    bar: `< ${limitS}`,
    ok: value !== null && value < limitS,
  };
}

function lossBar({ lossFirst, lossLast }: { lossFirst: number | null; lossLast: number | null }): Bar {
  return {
    name: 'training loss, last',
    value: lossLast,
    bar: lossFirst === null ? 'below the first loss, which never came' : `< ${lossFirst}, the first`,
    ok: lossFirst !== null && lossLast !== null && lossLast < lossFirst,
  };
}

function oracleBar(oracle: OracleVerdict): Bar {
  const figures = Object.entries(oracle)
    .filter(([name, value]) => name !== 'ok' && typeof value !== 'object')
    .map(([name, value]) => (typeof value === 'number' ? `${value} ${name}` : `${name}: ${value}`));
  if (oracle.fates) figures.push(`${oracle.fates.wrong} wrong fates`);
  return {
    name: 'samples equal to the oracle',
    value: figures.join(', ') || oracle.ok,
    bar: 'equal',
    ok: oracle.ok,
  };
}

const exactly = (name: string, value: number, bar: number): Bar => ({
  name,
  value,
  bar: String(bar),
  ok: value === bar,
});

export function firstAndLastLoss(
  losses: readonly LossPoint[],
  values: Record<string, number>,
): { lossFirst: number | null; lossLast: number | null } {
  if (losses.length === 0) return { lossFirst: roundOrNull(values.loss_first ?? null), lossLast: null };
  const share = Math.max(1, Math.floor(losses.length * LOSS_SHARE));
  const mean = (points: readonly LossPoint[]): number =>
    points.reduce((s, p) => s + p.loss, 0) / points.length;
  return {
    lossFirst: roundOrNull(values.loss_first ?? mean(losses.slice(0, share))),
    lossLast: roundOrNull(mean(losses.slice(-share))),
  };
}

const round = (n: number): number => Math.round(n * 1000) / 1000;
const roundOrNull = (n: number | null): number | null => (n === null ? null : round(n));
