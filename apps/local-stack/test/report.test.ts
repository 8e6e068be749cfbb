import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StageStatus } from '@onemall/service-kit';
import { buildReport, firstAndLastLoss, type ReportInput } from '../src/report.ts';
import { RunHistory } from '../src/run-history.ts';

const status = (service: string, more: Partial<StageStatus> = {}): StageStatus => ({
  service,
  state: 'running',
  in: 0,
  out: 0,
  p50Ms: null,
  p99Ms: null,
  lag: null,
  deadLetters: 0,
  values: {},
  rssBytes: 0,
  upSeconds: 1,
  ...more,
});

/** A run of 100 s in which the loss falls from 9 to 5 and every stage works. */
function goodRun(): RunHistory {
  const history = new RunHistory().begin(10_000);
  history.addStage('simulator', 'source');
  history.addStage('sample-assembler', 'service');
  history.addStage('trainer-retriever', 'service');
  for (let s = 1; s <= 100; s++) {
    const atMs = 10_000 + s * 1000;
    history.record(atMs, 'simulator', status('simulator', { out: 200 * s, upSeconds: s }));
    history.record(
      atMs,
      'sample-assembler',
      status('sample-assembler', {
        in: 200 * s,
        out: 150 * s,
        p50Ms: 5.25,
        p99Ms: 40,
        lag: 3,
        upSeconds: s,
      }),
    );
    history.record(
      atMs,
      'trainer-retriever',
      status('trainer-retriever', {
        in: 150 * s,
        out: s,
        upSeconds: s,
        values:
          s < 10
            ? { training_steps: 0 }
            : {
                training_steps: s - 9,
                loss: 9 - (4 * (s - 10)) / 90,
                loss_first: 9,
                sid_accuracy_1: 0.5,
                sid_accuracy_2: 0.25,
                sid_accuracy_3: 0.1,
              },
      }),
    );
  }
  history.recordRss('kafka', 5);
  history.recordRss('kafka', 9);
  history.recordRss('kafka', 7);
  history.markEnd(110_000);
  return history;
}
const input = (more: Partial<ReportInput> = {}): ReportInput => ({
  source: 'simulator',
  history: goodRun(),
  endedMs: 115_000,
  mustProduce: ['simulator', 'sample-assembler', 'trainer-retriever'],
  askedMs: 5_000,
  wasCold: false,
  deadLetters: 0,
  oracle: { ok: true, missing: 0, extra: 0, different: 0 },
  crashes: 0,
  gaveUp: null,
  interrupted: false,
  ...more,
});

test('a good run holds every bar and reports the figures of its end', () => {
  const report = buildReport(input());
  assert.deepEqual(
    report.bars.filter((b) => !b.ok),
    [],
  );
  assert.equal(report.ok, true);
  assert.equal(report.seconds, 100);
  assert.deepEqual(report.stages['sample-assembler'], {
    in: 20_000,
    out: 15_000,
    ratePerS: 200,
    p50Ms: 5.25,
    p99Ms: 40,
    lag: 3,
  });
  assert.equal(report.stages.simulator!.ratePerS, 200, 'a source is measured by what it writes');
  assert.equal(report.training.steps, 91);
  assert.equal(report.training.lossFirst, 9);
  assert.ok(report.training.lossLast! < 5.5);
  assert.deepEqual(report.training.sidAccuracy, [0.5, 0.25, 0.1]);
  assert.equal(report.training.losses.length, 91);
  assert.deepEqual(report.peakRssBytes, { kafka: 9 });
  assert.equal(JSON.parse(JSON.stringify(report)).bars.length, report.bars.length);
});

test('the first trained sample is timed from the moment the user asked', () => {
  const bar = buildReport(input()).bars.find((b) => b.name.includes('first trained sample'))!;
  assert.equal(bar.value, 15);
  assert.equal(bar.bar, '< 30');
  assert.equal(buildReport(input({ askedMs: -20_000 })).ok, false, '40 s is too long for a warm start');
  assert.equal(buildReport(input({ askedMs: -20_000, wasCold: true })).ok, true, 'not for a cold one');
});

const FAILURES: [what: string, more: Partial<ReportInput>, bar: RegExp][] = [
  ['a silent stage', { mustProduce: ['simulator', 'retriever'] }, /without output/],
  ['a dead letter', { deadLetters: 1 }, /dead letters/],
  ['a crash', { crashes: 1 }, /crashes/],
  ['a service that stays down', { gaveUp: 'x stays down' }, /stays down/],
  ['the end by hand', { interrupted: true, oracle: null }, /interrupted/],
  ['samples unlike the oracle', { oracle: { ok: false, missing: 2 } }, /oracle/],
];
for (const [what, more, name] of FAILURES)
  test(`${what} fails the run, by one bar`, () => {
    const report = buildReport(input(more));
    assert.equal(report.ok, false);
    const failed = report.bars.filter((b) => !b.ok);
    assert.equal(failed.length, 1);
    assert.match(failed[0]!.name, name);
  });

test('the oracle bar tells how many samples are wrong', () => {
  const verdict = {
    ok: false,
    missing: 2,
    extra: 3,
    fates: { counted: 90, wrong: 4 },
    firstDifferences: ['a'],
  };
  const report = buildReport(input({ oracle: verdict }));
  assert.equal(report.bars.at(-1)!.value, '2 missing, 3 extra, 4 wrong fates');
  const failed = buildReport(input({ oracle: { ok: false, failure: 'exit code 1: no broker' } }));
  assert.equal(failed.bars.at(-1)!.value, 'failure: exit code 1: no broker');
});

test('dead letters that a service counts fail the run even if the topic is not told', () => {
  const history = goodRun();
  history.record(
    111_000,
    'sample-assembler',
    status('sample-assembler', { out: 1, deadLetters: 2, upSeconds: 101 }),
  );
  assert.equal(buildReport(input({ history })).deadLetters, 2);
});

test('counts go on over a restart of a service', () => {
  const history = new RunHistory();
  history.addStage('retriever', 'service');
  history.record(1000, 'retriever', status('retriever', { in: 50, out: 20, upSeconds: 30 }));
  history.record(2000, 'retriever', status('retriever', { in: 5, out: 2, upSeconds: 1 }));
  const view = history.view('retriever')!;
  assert.equal(view.in, 55);
  assert.equal(view.out, 22);
});

test('steps of an earlier run are not taken for the first trained sample', () => {
  const history = new RunHistory();
  history.addStage('trainer-retriever', 'service');
  const at = (ms: number, steps: number) =>
    history.record(ms, 'trainer-retriever', status('t', { values: { training_steps: steps, loss: 3 } }));
  at(1000, 700);
  assert.equal(history.firstTrainedMs, null);
  at(2000, 701);
  assert.equal(history.firstTrainedMs, 2000);
  assert.deepEqual(
    history.losses.map((l) => l.step),
    [701],
  );
});

test('a loss that never came is a failed bar, not a crash', () => {
  assert.deepEqual(firstAndLastLoss([], {}), { lossFirst: null, lossLast: null });
  const history = new RunHistory();
  history.addStage('trainer-retriever', 'service');
  const report = buildReport(input({ history, mustProduce: [] }));
  assert.equal(report.ok, false);
  assert.equal(report.training.lossFirst, null);
});

test('a log without exposures is said to have synthetic negatives', () => {
  const history = new RunHistory();
  history.addStage('replay', 'source');
  const values = { synthetic_exposures: 50, synthetic_negatives: 40, bad_rows: 2, done: 1 };
  history.record(1000, 'replay', status('replay', { out: 9, values }));
  const { notes } = buildReport(input({ history, mustProduce: [] }));
  assert.equal(notes.length, 3);
  assert.match(notes[0]!, /50 were made up.*40 seeded negatives.*synthetic negatives/);
  assert.match(notes[1]!, /2 rows .* bad/);
  assert.deepEqual(buildReport(input()).notes, [], 'nothing to say of the simulator');
});
