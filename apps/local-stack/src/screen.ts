/** What the terminal shows; pure functions from the state of the run to text. */
import type { StageView } from './run-history.ts';

export interface ScreenInput {
  source: string;
  seconds: number;
  stages: readonly StageView[];
  dashboardUrl: string | null;
  /** The newest last. */
  messages: readonly string[];
  columns: number;
}

const HEADERS = ['stage', 'state', 'in', 'out', 'rate/s', 'p50 ms', 'p99 ms', 'lag', 'memory'];
const SHOWN_MESSAGES = 6;

/** One refreshing screen: a row per stage, the figures a newcomer looks for, the latest messages. */
export function renderScreen(input: ScreenInput): string[] {
  const rows = input.stages.map((s) => [
    s.name,
    stateText(s),
    count(s.in),
    count(s.out),
    s.ratePerS < 10 ? s.ratePerS.toFixed(1) : count(s.ratePerS),
    milliseconds(s.p50Ms),
    milliseconds(s.p99Ms),
    s.lag === null ? '-' : count(s.lag),
    s.rssBytes > 0 ? `${Math.round(s.rssBytes / 1_048_576)} MB` : '-',
  ]);
  const widths = HEADERS.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells.map((c, i) => (i < 2 ? c.padEnd(widths[i]!) : c.padStart(widths[i]!))).join('  ');
  return [
    `OneMall Pipeline on ${input.source}, ${duration(input.seconds)}. ${input.dashboardUrl ? `Dashboard: ${input.dashboardUrl}` : 'The dashboard is starting'}`,
    '',
    line(HEADERS),
    ...rows.map(line),
    '',
    ...figures(input.stages).map(({ name, value }) => `${name.padEnd(22)}${value}`),
    '',
    ...input.messages.slice(-SHOWN_MESSAGES),
    'Ctrl-C stops everything; the next start goes on from there.',
  ].map((text) => (text.length > input.columns ? text.slice(0, input.columns) : text));
}

/** One line for logs and pipes. */
export function renderLine(input: ScreenInput): string {
  const parts = figures(input.stages).map(({ name, value }) => `${name} ${value}`);
  const waiting = input.stages
    .filter((s) => stateText(s) !== 'running')
    .map((s) => `${s.name} ${stateText(s)}`);
  return [`${Math.round(input.seconds)} s`, ...parts, ...waiting].join(' | ');
}

/** The counters of the whole pipeline. */
export function figures(stages: readonly StageView[]): { name: string; value: string }[] {
  const stage = (name: string): StageView | undefined => stages.find((s) => s.name === name);
  const source = stage('simulator') ?? stage('replay');
  const assembler = stage('sample-assembler');
  const trainer = stage('trainer-retriever');
  const updater = stage('live-sid-updater');
  const scorer = stage('reward-scorer');
  const sink = stage('metrics-sink');
  const list: { name: string; value: string }[] = [];
  const add = (name: string, value: string | undefined): void => {
    if (value !== undefined) list.push({ name, value });
  };
  add('events in', source && count(eventsOf(source)));
  add('samples out', assembler && count(assembler.out));
  add('training steps', trainer && count(trainer.values.training_steps ?? 0));
  add('loss', trainer && lossText(trainer.values));
  add('SID accuracy', trainer && accuracyText(trainer.values));
  add('live SIDs', updater && count(updater.values.live_sids_recomputed ?? updater.out));
  add('rollouts scored', scorer && count(scorer.out));
  add('ClickHouse rows', sink && count(sink.out));
  return list;
}

/** The state, or what a running stage still waits for. */
function stateText({ state, values }: StageView): string {
  if (state !== 'running') return state;
  if (values.codebooks_missing) return 'waits for codebooks';
  if (values.ranker_loaded === 0) return 'waits for a ranker';
  return state;
}

/** Exposures, clicks and buys; a source also writes items and product changes. */
function eventsOf({ values }: StageView): number {
  return (values.events_exposures ?? 0) + (values.events_clicks ?? 0) + (values.events_buys ?? 0);
}

function lossText(values: Record<string, number>): string {
  if (values.loss === undefined) return 'not yet';
  const first = values.loss_first === undefined ? '' : ` (first ${values.loss_first.toFixed(3)})`;
  return values.loss.toFixed(3) + first;
}

function accuracyText(values: Record<string, number>): string {
  const levels = [1, 2, 3].map((l) => values[`sid_accuracy_${l}`]).filter((a) => a !== undefined);
  return levels.length === 0 ? 'not yet' : levels.map((a) => `${(a * 100).toFixed(1)} %`).join(', ');
}

const count = (n: number): string => Math.round(n).toLocaleString('en-US');
const milliseconds = (ms: number | null): string => (ms === null ? '-' : ms < 10 ? ms.toFixed(1) : count(ms));
export function duration(seconds: number): string {
  const s = Math.floor(seconds);
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  return parts.map((p) => String(p).padStart(2, '0')).join(':');
}
