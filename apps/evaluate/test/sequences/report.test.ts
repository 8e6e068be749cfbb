import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { curvesSvg, ticks } from '../../src/curves.ts';
import { parseCommand, UsageError } from '../../src/sequences/command-line.ts';
import { markdown, tableOf } from '../../src/sequences/report.ts';
import type { RunResult } from '../../src/sequences/study.ts';
import { NONE } from '../../src/sequences/train-run.ts';

test('the command line names a set, rows and seeds', () => {
  const command = parseCommand([
    'amazon-beauty',
    '--data',
    '/sets',
    '--seeds',
    '4,5',
    '--models',
    'sasrec,tiger',
  ]);
  assert.equal(command.data, path.resolve('/sets/amazon-beauty'));
  assert.deepEqual(
    [command.rows, command.seeds],
    [
      ['sasrec', 'tiger'],
      [4, 5],
    ],
  );
  assert.equal(parseCommand(['sequences', '--data', '/sets']).data, path.resolve('/sets'));
  assert.ok(parseCommand(['sequences', '--data', '/sets', '--ablations']).rows.includes('query-former'));
});

test('what cannot be meant is refused', () => {
  for (const [args, message] of [
    [[], /expected one of: sequences, amazon-beauty/],
    [['books', '--data', 'x'], /there is no set books/],
    [['sequences'], /--data FOLDER is missing/],
    [['sequences', '--data', 'x', '--models', 'bert'], /there is no model bert/],
    [['sequences', '--data', 'x', '--seeds', '1,-2'], /got "-2"/],
    [['sequences', '--data', 'x', '--seeds', '1,,2'], /--seeds has an empty part/],
    [['sequences', '--data', 'x', '--engine', 'tpu'], /there is no engine tpu; there are tensorflow, cuda/],
    [['sequences', '--data', 'x', '--sedes', '1'], /sedes/],
  ] as const)
    assert.throws(
      () => parseCommand(args),
      (error: Error) => error instanceof UsageError && message.test(error.message),
    );
});

const result = (seed: number, recall: number): RunResult => {
  const metrics = { 'R@5': recall / 2, 'R@10': recall, 'N@5': recall / 4, 'N@10': recall / 3 };
  const judged = { in: metrics, out: { ...metrics, 'R@10': recall + 0.01 } };
  return {
    row: 'sasrec',
    seed,
    parameters: 1_500_000,
    progress: { epochs: [], best: NONE, done: true },
    trainCpuSeconds: 60 * seed,
    lists: { dense: { validation: judged, test: judged } },
  };
};

test('tables are means over the seeds with their standard deviation', () => {
  const [inside, outside] = tableOf([result(1, 0.07), result(2, 0.08), result(3, 0.09)]);
  assert.deepEqual(inside!.seeds, [1, 2, 3]);
  assert.ok(Math.abs(inside!.test[1]! - 0.08) < 1e-12);
  assert.ok(Math.abs(inside!.spread - 0.01) < 1e-12);
  assert.ok(Math.abs(outside!.test[1]! - 0.09) < 1e-12);
  assert.equal(inside!.cpuMinutes, 2);
  const lines = markdown([inside!]).trim().split('\n');
  assert.equal(
    lines[2],
    '| sasrec | dense | in | .0400 | .0800 | .0200 | .0267 | .0100 | .0800 | 1 2 3 | 2.0 | 1.50 M |',
  );
  assert.equal(new Set(lines.map((line) => line.split('|').length)).size, 1);
});

test('curves lie within the picture, and names cannot break it', () => {
  const svg = curvesSvg('loss <of> a & b', { x: 'epoch', y: 'nats' }, [
    {
      name: 'one',
      points: [
        [1, 5],
        [2, 3],
        [4, 2.5],
      ],
    },
    { name: 'none yet', points: [] },
  ]);
  assert.match(svg, /loss &lt;of&gt; a &amp; b/);
  assert.doesNotMatch(svg, /NaN|Infinity|none yet/);
  const points = /<polyline points="([^"]+)"/
    .exec(svg)![1]!
    .split(' ')
    .map((p) => p.split(',').map(Number));
  assert.equal(points.length, 3);
  for (const [x, y] of points) assert.ok(x! >= 0 && x! <= 720 && y! >= 0 && y! <= 420);
  assert.ok(points[0]![1]! < points[2]![1]!, 'a greater loss lies higher');
  assert.doesNotMatch(curvesSvg('empty', { x: 'x', y: 'y' }, []), /NaN|Infinity/);
  assert.deepEqual(
    ticks(0, 1).map((v) => Number(v.toFixed(6))),
    [0, 0.2, 0.4, 0.6, 0.8, 1],
  );
});
