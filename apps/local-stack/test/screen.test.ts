import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crashStory } from '../src/crash-story.ts';
import { decideRestart } from '../src/restart-policy.ts';
import type { StageView } from '../src/run-history.ts';
import { duration, renderLine, renderScreen, type ScreenInput } from '../src/screen.ts';

const stage = (name: string, more: Partial<StageView> = {}): StageView => ({
  name,
  role: 'service',
  state: 'running',
  in: 0,
  out: 0,
  ratePerS: 0,
  p50Ms: null,
  p99Ms: null,
  lag: null,
  deadLetters: 0,
  values: {},
  rssBytes: 0,
  ...more,
});
const input = (more: Partial<ScreenInput> = {}): ScreenInput => ({
  source: 'simulator',
  seconds: 83.4,
  stages: [
    stage('simulator', {
      out: 13_000,
      ratePerS: 250,
      values: { events_exposures: 12_000, events_clicks: 300, events_buys: 45 },
    }),
    stage('sample-assembler', {
      in: 12_000,
      out: 9_000,
      p50Ms: 3.14,
      p99Ms: 1234,
      lag: 45,
      rssBytes: 104_857_600,
    }),
    stage('trainer-retriever', {
      values: {
        training_steps: 340,
        loss: 6.2109,
        loss_first: 9.01,
        sid_accuracy_1: 0.412,
        sid_accuracy_2: 0.2,
        sid_accuracy_3: 0.05,
      },
    }),
    stage('live-sid-updater', { values: { live_sids_recomputed: 77 } }),
    stage('reward-scorer', { out: 31 }),
    stage('metrics-sink', { out: 45_678, state: 'crashed' }),
  ],
  dashboardUrl: 'http://127.0.0.1:1234/',
  messages: ['one', 'two'],
  columns: 140,
  ...more,
});

test('the screen shows each stage in a row and the figures a newcomer looks for', () => {
  const text = renderScreen(input()).join('\n');
  assert.match(text, /^OneMall Pipeline on simulator, 00:01:23\. Dashboard: http:\/\/127\.0\.0\.1:1234\/$/m);
  assert.match(text, /^sample-assembler +running +12,000 +9,000 +0\.0 +3\.1 +1,234 +45 +100 MB$/m);
  assert.match(text, /^metrics-sink +crashed/m);
  assert.match(text, /^loss +6\.211 \(first 9\.010\)$/m);
  assert.match(text, /^SID accuracy +41\.2 %, 20\.0 %, 5\.0 %$/m);
  assert.match(text, /^live SIDs +77$/m);
  assert.match(text, /^ClickHouse rows +45,678$/m);
  assert.match(text, /^two\nCtrl-C/m);
});

test('columns of the table line up', () => {
  const lines = renderScreen(input());
  const header = lines.find((l) => l.startsWith('stage'))!;
  const rows = lines.slice(lines.indexOf(header) + 1, lines.indexOf(header) + 7);
  for (const row of rows) assert.equal(row.length, header.length, row);
});

test('no line is wider than the terminal', () => {
  for (const columns of [20, 60]) {
    const wide = input({ columns, messages: ['x'.repeat(500)] });
    for (const line of renderScreen(wide)) assert.ok(line.length <= columns);
  }
});

test('without a terminal one line tells the same', () => {
  assert.equal(
    renderLine(input()),
    '83 s | events in 12,345 | samples out 9,000 | training steps 340 | loss 6.211 (first 9.010) | SID accuracy 41.2 %, 20.0 %, 5.0 % | live SIDs 77 | rollouts scored 31 | ClickHouse rows 45,678 | metrics-sink crashed',
  );
});

test('before the first step the loss is told as not yet there', () => {
  assert.match(
    renderLine(input({ stages: [stage('trainer-retriever')] })),
    /loss not yet \| SID accuracy not yet/,
  );
});

test('a running stage tells what it waits for', () => {
  const stages = [
    stage('trainer-ranker', { values: { codebooks_missing: 2 } }),
    stage('reward-scorer', { values: { ranker_loaded: 0 } }),
    stage('retriever', { values: { ranker_loaded: 1 } }),
  ];
  assert.match(
    renderLine(input({ stages })),
    /\| trainer-ranker waits for codebooks \| reward-scorer waits for a ranker$/,
  );
});

test('durations count up to hours', () => {
  assert.equal(duration(0), '00:00:00');
  assert.equal(duration(3_725.9), '01:02:05');
});

test('a crashed service comes back after 1, 2, 4, 8 s and then stays down', () => {
  const crashes: number[] = [];
  const decisions = [0, 2_000, 5_000, 10_000, 19_000].map((ms) => {
    crashes.push(ms);
    return decideRestart(crashes, { code: 1, signal: null });
  });
  assert.deepEqual(
    decisions.slice(0, 4),
    [1_000, 2_000, 4_000, 8_000].map((restartAfterMs) => ({ restartAfterMs })),
  );
  assert.deepEqual(decisions[4], { giveUp: 'it crashed 5 times within 120 s' });
});

test('old crashes are forgiven', () => {
  const decision = decideRestart([0, 1_000, 2_000, 3_000, 500_000], { code: null, signal: 'SIGKILL' });
  assert.deepEqual(decision, { restartAfterMs: 1_000 });
});

test('wrong settings are not tried again', () => {
  assert.deepEqual(decideRestart([0], { code: 2, signal: null }), { giveUp: 'its settings are wrong' });
});

test('the story of a crash is what the log warned of and what Node printed, without stack frames', () => {
  const log = [
    '{"level":30,"msg":"starting"}',
    '{"level":50,"msg":"lost the broker","err":{"message":"ECONNREFUSED 127.0.0.1:9092"}}',
    '{"level":60,"msg":"the disk is full","err":{"message":"the disk is full"}}',
    'SyntaxError: no export named x',
    '    at file:///a.ts:1:2',
    '',
    'Node.js v24.0.0',
    '{"level":30,"torn',
  ].join('\n');
  assert.deepEqual(crashStory(log), [
    'lost the broker: ECONNREFUSED 127.0.0.1:9092',
    'the disk is full',
    'SyntaxError: no export named x',
    '{"level":30,"torn',
  ]);
  assert.deepEqual(crashStory(log, 1), ['{"level":30,"torn']);
});
