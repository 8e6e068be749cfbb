import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { REPOSITORY_ROOT } from '@onemall/stack';
import { FlagError, HELP, parseStartFlags, type StartFlags } from '../src/flags.ts';
import { planProcesses } from '../src/plan.ts';

const parsed = (...argv: string[]): StartFlags => {
  const flags = parseStartFlags(argv, '/home/me');
  assert.notEqual(flags, 'help');
  return flags as StartFlags;
};

test('without flags the simulator runs until it is stopped', () => {
  assert.deepEqual(parsed(), {
    source: 'simulator',
    mapping: null,
    follow: false,
    data: null,
    forSeconds: null,
    ratePerS: null,
    report: null,
    seed: null,
    only: null,
    state: path.join(REPOSITORY_ROOT, '.data'),
  });
});

test('every flag arrives with its type', () => {
  const flags = parsed(
    ...'--source kafka:orders --mapping m.json --follow --for 12.5 --rate 40 --report r.json --seed 7'.split(
      ' ',
    ),
    '--only',
    'trainer, retriever',
    '--state',
    '/tmp/x',
  );
  assert.equal(flags.source, 'kafka:orders');
  assert.equal(flags.follow, true);
  assert.equal(flags.forSeconds, 12.5);
  assert.equal(flags.ratePerS, 40);
  assert.equal(flags.seed, 7);
  assert.deepEqual(flags.only, ['trainer', 'retriever']);
  assert.equal(flags.state, '/tmp/x');
});

test('paths begin in the folder where the user typed the command', () => {
  const flags = parsed(...'--source logs.csv --mapping my/map.json --report r.json --state s'.split(' '));
  assert.equal(flags.source, '/home/me/logs.csv');
  assert.equal(flags.mapping, '/home/me/my/map.json');
  assert.equal(flags.report, '/home/me/r.json');
  assert.equal(flags.state, '/home/me/s');
  assert.equal(parsed('--source', 'trivago', '--data', '../logs').data, '/home/logs');
  assert.equal(
    parsed('--source', 'x.csv', '--mapping', 'tmall').mapping,
    'tmall',
    'the name of a ready mapping',
  );
});

const WRONG: [what: string, argv: string[], says: RegExp][] = [
  ['a duration that is no number', ['--for', 'soon'], /--for takes a number of seconds above 0, got soon/],
  ['an empty number', ['--rate', ' '], /--rate takes a number of events per second above 0, got/],
  ['a rate of zero', ['--rate', '0'], /above 0, got 0/],
  ['a broken seed', ['--seed', '1.5'], /--seed takes a whole number from 0 on, got 1.5/],
  ['an unknown flag', ['--sorce', 'tmall'], /--sorce.*--help/s],
  ['own logs without a mapping', ['--source', './logs.csv'], /needs --mapping FILE/],
  ['a topic without a name', ['--source', 'kafka:'], /needs the name of the topic/],
  ['a public log without its data', ['--source', 'trivago'], /--source trivago needs --data FOLDER/],
  ['a mapping for the simulator', ['--mapping', 'm.json'], /--mapping belongs to a replayed source/],
  [
    'following a file',
    ['--source', 'tmall', '--data', '.', '--follow'],
    /--follow belongs to --source kafka:TOPIC/,
  ],
];
for (const [what, argv, says] of WRONG)
  test(`${what} gets one clear message`, () => {
    assert.throws(
      () => parseStartFlags(argv),
      (error: unknown) => error instanceof FlagError && says.test(error.message),
    );
  });

test('the help names every flag that is understood', () => {
  assert.equal(parseStartFlags(['--help']), 'help');
  for (const flag of [
    'source',
    'data',
    'mapping',
    'follow',
    'rate',
    'for',
    'report',
    'seed',
    'only',
    'state',
  ])
    assert.match(HELP, new RegExp(`--${flag} `));
});

test('the plan follows the pipeline, with both trainers told apart', () => {
  const plan = planProcesses({ flags: parsed(), hasRedis: true });
  assert.deepEqual(
    plan.map((p) => p.name),
    [
      'simulator',
      'sample-assembler',
      'live-sid-updater',
      'trainer-retriever',
      'trainer-ranker',
      'retriever',
      'reward-scorer',
      'job-runner',
      'metrics-sink',
      'dashboard',
    ],
  );
  assert.deepEqual(
    plan.filter((p) => p.wave === 1).map((p) => p.name),
    ['simulator', 'sample-assembler', 'live-sid-updater', 'trainer-retriever'],
    'first what the first trained sample needs',
  );
  assert.deepEqual(
    plan.filter((p) => p.entry === 'services/trainer/src/main.ts').map((p) => p.env.ONEMALL_MODEL),
    ['retriever', 'ranker'],
  );
});

test('without Redis only the jobs are missing', () => {
  const names = (hasRedis: boolean) => planProcesses({ flags: parsed(), hasRedis }).map((p) => p.name);
  assert.deepEqual(
    names(true).filter((n) => !names(false).includes(n)),
    ['job-runner'],
  );
});

test('--only keeps the named services, the source and the dashboard', () => {
  const names = planProcesses({ flags: parsed('--only', 'trainer,metrics-sink'), hasRedis: true }).map(
    (p) => p.name,
  );
  assert.deepEqual(names, ['simulator', 'trainer-retriever', 'trainer-ranker', 'metrics-sink', 'dashboard']);
  assert.throws(
    () => planProcesses({ flags: parsed('--only', 'trainer,mixer'), hasRedis: true }),
    /--only names mixer, which is no service: known are sample-assembler/,
  );
});

test('a source that is not the simulator is replayed', () => {
  assert.equal(
    planProcesses({ flags: parsed('--source', 'trivago', '--data', '.'), hasRedis: true })[0]!.name,
    'replay',
  );
});
