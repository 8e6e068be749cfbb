/** The whole run on a small world: it gives a table, and a run that was stopped anywhere gives the same one. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import type { Curve } from '../../src/curves.ts';
import { RunStore } from '../../src/world/adapters/run-store.ts';
import { WorldLog } from '../../src/world/log/world-log.ts';
import { runHitRates } from '../../src/world/run-world.ts';
import { smallPlan } from './small-plan.ts';
import { folder, run } from './small-run.ts';

const BEAM = 'OneMall, beam';
const DENSE = 'OneMall, dense head + log popularity';
/** The part of a report whose lists are of so many items. */
const atKs = (report: string): string => report.split('At equal shares')[0]!;

test('a run that was stopped in training and in judging ends with the table of one that was not', async () => {
  const whole = await runHitRates(run('whole', { epochs: 2 }));
  assert.deepEqual(
    [...atKs(whole).matchAll(/\| product_card \(\d+\) \| (.*?) \| \d/g)].map(([, list]) => list),
    ['viewed', 'clicked'].flatMap(() => ['random', 'popularity', BEAM, DENSE, 'oracle']),
  );
  assert.match(
    whole,
    /: OneMall, beam against each\n\n.*\n.*\n\| popularity \| -?\d+\.\d \(.*\n\| OneMall, dense head/,
  );
  // of the second pass alone, at all three levels over all codes and over the children, and the loss
  const accuracies = [
    ...whole.matchAll(
      /\| (\w+) \| onemall-tiny \| (\d+) \| \d+ (?:\| (\d+\.\d) ){6}\| (\d+\.\d{3}) \| \d+\.\d{3} \|/g,
    ),
  ];
  assert.deepEqual(
    accuracies.map(([, scenario]) => scenario),
    ['product_card', 'short_video', 'live_stream'],
  );
  assert.equal(
    accuracies.reduce((sum, [, , samples]) => sum + Number(samples), 0),
    200,
  );

  assert.match(whole, /Trained among the children in trie [0-9a-f]{12}\./);

  const stopped = run('stopped', { epochs: 2, checkpointEvery: 4 });
  await assert.rejects(
    runHitRates({
      ...stopped,
      print: (line) => {
        if (/checkpoint of onemall-tiny at step 16/.test(line)) throw new Error('stopped in training');
      },
    }),
    /stopped in training/,
  );
  assert.equal(
    new RunStore(stopped.folder, `plan ${stopped.plan.hash}`).value('onemall-tiny/policy'),
    undefined,
  );
  assert.equal(await runHitRates(stopped), whole);
  const kept = (file: string): string[] =>
    ['whole', 'stopped'].map((name) => readFileSync(path.join(folder, name, file), 'utf8'));
  const [curve, resumed] = kept('onemall-tiny/curve.json');
  assert.equal(resumed, curve);
  // 13 steps a pass
  assert.equal((JSON.parse(curve!) as Curve).points.length, 26);
  const [picture, again] = kept('loss.svg');
  assert.equal(again, picture);
  assert.match(picture!, /onemall-tiny/);

  // without time to judge, the table is of what is on file
  assert.equal(await runHitRates({ ...stopped, judgeMinutes: 0 }), whole);

  // a stop while judging leaves some of the lines, the last one cut off
  const ranks = path.join(stopped.folder, 'ranks.jsonl');
  const lines = readFileSync(ranks, 'utf8');
  writeFileSync(ranks, lines.slice(0, Math.floor(lines.length / 2)));
  const half = await runHitRates({ ...stopped, judgeMinutes: 0 });
  assert.notEqual(half, whole);
  assert.equal(await runHitRates(stopped), whole);
});

test('the baselines are asked the same requests, from their checkpoints the second time', async () => {
  const first = await runHitRates(run('baselines', { models: ['sasrec', 'tiger'] }));
  const baselines = ['SASRec', 'SASRec + log popularity', "TIGER's form", "TIGER's form + log popularity"];
  for (const scenario of ['product_card', 'short_video', 'live_stream']) {
    const rows = atKs(first).matchAll(new RegExp(`\\| ${scenario} \\(\\d+\\) \\| (.*?) \\|`, 'g'));
    const lists = ['random', 'popularity', ...baselines, 'oracle'];
    assert.deepEqual(
      [...rows].map(([, list]) => list),
      [...lists, ...lists],
    );
  }

  const picture = readFileSync(path.join(folder, 'baselines', 'loss.svg'), 'utf8');
  for (const name of ['sasrec', 'tiger']) assert.match(picture, new RegExp(`>${name}<`));

  const printed: string[] = [];
  const ranks = path.join(folder, 'baselines', 'ranks.jsonl');
  const before = readFileSync(ranks, 'utf8');
  const judged = before
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { ranks: Record<string, number[]> }).ranks);
  const found = (places: number[]) => places.map((place) => place >= 0);
  // popularity orders anew what the beam found
  for (const of of judged) assert.deepEqual(found(of.tiger!), found(of['tiger-popular']!));
  assert.notDeepEqual(
    judged.map((of) => of.tiger),
    judged.map((of) => of['tiger-popular']),
  );
  writeFileSync(ranks, '');
  const print = (line: string) => printed.push(line);
  assert.equal(await runHitRates(run('baselines', { models: ['sasrec', 'tiger'], print })), first);
  assert.equal(readFileSync(ranks, 'utf8'), before);
  assert.ok(!printed.some((line) => /^(sasrec|tiger): epoch/.test(line)), printed.join('\n'));
});

test('two seeds, the model without Query-Formers and the one of clicks alone stand in one table, with what they cost', async () => {
  const models = ['onemall', 'onemall-events', 'onemall-clicks'] as const;
  const printed: string[] = [];
  const print = (line: string) => printed.push(line);
  const seeds = [1, 2].map((seed) =>
    run(`both-${seed}`, { seed, models, print, positives: 100, requests: 10 }),
  );
  const both = await runHitRates(...seeds);
  assert.match(both, /models' seeds 1, 2;/);
  for (const list of [BEAM, 'OneMall without Query-Former, beam', 'OneMall, clicks alone, beam'])
    assert.match(both, new RegExp(`\\| live_stream \\(\\d+\\) \\| ${list} \\| (\\d|all)`));
  // three behaviours of two queries, or of six events
  assert.match(both, /\| onemall-tiny \| 6 \|/);
  assert.match(both, /\| onemall-tiny-events \| 18 \|/);
  const alone = await Promise.all(seeds.map((one) => runHitRates(one)));
  assert.notEqual(alone[0], alone[1]);
});

test('the table at equal shares of the rooms agrees with the places on file', async () => {
  const plan = smallPlan({ trainExposures: 3_000, testExposures: 1_200 });
  plan.spec = { ...plan.spec, liveRooms: 100 };
  const report = await runHitRates(run('shares', { positives: 0, requests: 120, plan }));
  const [, shares] = report.split('At equal shares of the candidates') as [string, string | undefined];
  assert.ok(shares, report);
  const rows = shares.split('\n').map((line) => line.split('|').map((cell) => cell.trim()));
  // 600 cards: six, twelve and sixty of them
  assert.ok(rows.some(([, scenario]) => scenario?.startsWith('product_card (')));
  const of = (list: string): number[] =>
    rows
      .find(([, scenario, name]) => scenario?.startsWith('live_stream (') && name === list)!
      .slice(3, 6)
      .map((cell) => Number(cell.split(' ')[0]));
  assert.deepEqual(of('random'), [1, 2, 10]);
  // of the best of twelve draws: 1 - 0.99^12, 1 - 0.98^12, 1 - 0.9^12
  assert.deepEqual(of('taste-draw'), [11.4, 21.5, 71.8]);
  const log = new WorldLog(plan);
  while (log.numExposures < 4_200) log.nextRequest();
  const judged = readFileSync(path.join(folder, 'shares', 'ranks.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { request: number; ranks: Record<string, number[]> })
    .filter(({ request }) => log.scenario(request) === 'live_stream');
  assert.ok(judged.length > 10);
  for (const list of ['popularity', 'oracle'])
    assert.deepEqual(
      of(list),
      [1, 2, 10].map((k) => {
        const hits = judged.map(({ ranks }) => {
          const places = ranks[list]!;
          return places.filter((place) => place >= 0 && place < k).length / places.length;
        });
        return Number(((100 * hits.reduce((a, b) => a + b, 0)) / hits.length).toFixed(1));
      }),
    );
});

test('a folder of another plan is refused', async () => {
  await runHitRates(run('other', { positives: 0, requests: 5 }));
  const plan = { ...smallPlan({ trainExposures: 3_000, testExposures: 600 }), hash: 'another' };
  await assert.rejects(runHitRates(run('other', { positives: 0, requests: 5, plan })), /name another folder/);
});

test('a larger budget judges the requests of a smaller one and more', async () => {
  const requestsOf = (name: string): Set<number> =>
    new Set(
      readFileSync(path.join(folder, name, 'ranks.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { request: number }).request),
    );
  await runHitRates(run('few', { positives: 0, requests: 10 }));
  await runHitRates(run('more', { positives: 0, requests: 40 }));
  const [few, more] = [requestsOf('few'), requestsOf('more')];
  assert.ok(few.size > 2 && more.size > few.size);
  for (const request of few) assert.ok(more.has(request));
});
