/** The gate before publication: limits, the beam search that it measures with, and a policy made worse. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StreamedSample } from '@onemall/contracts';
import { itemTensors, requestTensors, sidLayout } from '@onemall/features';
import {
  createRetrievalTrainer,
  type PolicyRuntime,
  type RetrievalSample,
  type RetrievalTrainer,
} from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import { RecallGate } from '../src/adapters/recall-gate.ts';
import { trainerConfig } from '../src/config.ts';
import { gateRules } from '../src/open-model.ts';
import { differenceError, gatePolicy } from '../src/stages/gate-policy.ts';
import { beamFinds, sidTrees } from '../src/stages/measure-recall.ts';
import { HeldBackSlice } from '../src/state/held-back-slice.ts';
import { NUM_CODES, SCENARIOS, sample, sidOf } from './synthetic.ts';

test('a fall beyond the limit is refused with both values, a smaller one or a rise passes', () => {
  const limits = [{ figure: 'recall', maxFall: 0.05 }];
  assert.deepEqual(gatePolicy({ recall: 0.36 }, { recall: 0.4 }, limits), []);
  assert.deepEqual(gatePolicy({ recall: 0.9 }, { recall: 0.4 }, limits), []);
  assert.deepEqual(gatePolicy({ recall: 0.3 }, { recall: 0.4 }, limits), [
    'recall is 0.3 after 0.4, a fall of more than 0.05',
  ]);
  assert.deepEqual(gatePolicy({ recall: 0 }, null, limits), [], 'nothing to fall from');
});

test('a fall that may be chance passes, however far it goes; with more requests the same one is refused', () => {
  // 6 of 20 requests lost, 2 gained: a fall of 0.2 with a standard error of 0.138
  const before = [...Array(12).fill(1), ...Array(8).fill(0)];
  const now = [...Array(6).fill(0), ...Array(6).fill(1), 1, 1, ...Array(6).fill(0)];
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const judge = (times: number) => {
    const [a, b] = [before, now].map((values) => Array.from({ length: times }, () => values).flat());
    const fallError = differenceError(a!, b!, true);
    return gatePolicy({ recall: mean(b!) }, { recall: mean(a!) }, [
      { figure: 'recall', maxFall: 0.1, fallError },
    ]);
  };
  assert.ok(Math.abs(differenceError(before, now, true) - Math.sqrt((8 - 20 * 0.04) / 19 / 20)) < 1e-12);
  assert.deepEqual(judge(1), []);
  assert.match(
    judge(5).join(),
    /recall is 0\.4 after 0\.6, a fall of more than 0\.1 and of 3\.3 standard errors/,
  );
  // the same lists without knowing which request is which
  const [p, q, n] = [0.6, 0.4, 20];
  const welch = Math.sqrt((p * (1 - p) + q * (1 - q)) / (n - 1));
  assert.ok(Math.abs(differenceError(before, now, false) - welch) < 1e-12);
  assert.equal(differenceError([1], [0], true), 0, 'one request has no spread: the limit alone decides');
});

test('a fall counts only from where a figure has been learned', () => {
  const limits = [{ figure: 'legality', maxFall: 0.05, fallsFrom: 0.2 }];
  assert.deepEqual(gatePolicy({ legality: 0 }, { legality: 0.07 }, limits), []);
  assert.deepEqual(gatePolicy({ legality: 0.1 }, { legality: 0.2 }, limits), [
    'legality is 0.1 after 0.2, a fall of more than 0.05',
  ]);
});

test('every limit counts by itself; what was measured on neither side is passed over', () => {
  const limits = [
    { figure: 'recall', maxFall: 0.05 },
    { figure: 'kl', maxRise: 0.5, most: 2 },
    { figure: 'entropy', least: 1 },
  ];
  assert.deepEqual(gatePolicy({}, {}, limits), []);
  assert.deepEqual(gatePolicy({ kl: 3, entropy: 0.5 }, { kl: 1 }, limits), [
    'kl is 3 after 1, a rise of more than 0.5',
    'kl is 3 after 1, more than 2',
    'entropy is 0.5, less than 1',
  ]);
  assert.match(gatePolicy({ recall: Number.NaN }, null, limits)[0]!, /recall is NaN/);
  assert.match(gatePolicy({}, { recall: 0.4 }, limits)[0]!, /recall is undefined: it could not be measured/);
});

/** A policy whose log-probabilities follow from the prefix alone, by a hash. */
function hashedPolicy(numCodes: [number, number, number], seed: number) {
  const logProb = (prefix: readonly number[], code: number): number => {
    const random = new SeededRandom([...prefix, code].reduce((h, c) => Math.imul(h, 31) + c + 1, seed));
    return Math.fround(-3 * random.next());
  };
  const policy = {
    manifest: { numCodes: { a: numCodes } } as unknown as PolicyRuntime['manifest'],
    encode: async () => ({ scenario: 'a', data: new Float32Array(0) }),
    decode: async (_context: unknown, level: 0 | 1 | 2, prefixes: Int32Array, n: number) => {
      const out = new Float32Array(n * numCodes[level]);
      for (let row = 0; row < n; row++) {
        const prefix = [...prefixes.subarray(row * level, (row + 1) * level)];
        for (let code = 0; code < numCodes[level]; code++)
          out[row * numCodes[level] + code] = logProb(prefix, code);
      }
      return out;
    },
  };
  const score = (codes: readonly number[]): number =>
    codes.reduce((sum, code, level) => sum + logProb(codes.slice(0, level), code), 0);
  return { policy, score };
}

test('a beam as wide as the tree finds exactly the best SIDs that exist', async () => {
  const numCodes: [number, number, number] = [4, 3, 5];
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.tuple(fc.nat(3), fc.nat(2), fc.nat(4)), { minLength: 1, selector: String }),
      fc.nat(1_000),
      fc.integer({ min: 1, max: 60 }),
      async (sids, seed, width) => {
        const { policy, score } = hashedPolicy(numCodes, seed);
        const tree = sidTrees(sids.map(([c1, c2, c3]) => ({ scenario: 'a', c1, c2, c3 }))).get('a')!;
        const request = { scenario: 'a' } as RetrievalSample['request'];
        const best = sids.toSorted((a, b) => score(b) - score(a));
        for (const [place, [c1, c2, c3]] of best.entries()) {
          const target = { scenario: 'a', c1, c2, c3 };
          assert.equal(await beamFinds(policy, request, target, tree, sids.length), true);
          if (width < sids.length) continue;
          assert.equal(await beamFinds(policy, request, target, tree, width), place < width);
        }
        const absent = { scenario: 'a', c1: 3, c2: 2, c3: 4 };
        if (!sids.some((s) => s.join() === '3,2,4'))
          assert.equal(await beamFinds(policy, request, absent, tree, 60), false);
      },
    ),
    { seed: 31, numRuns: 40 },
  );
});

test('a beam of one follows the best code at each level', async () => {
  const { policy } = hashedPolicy([2, 2, 2], 5);
  const all = Array.from({ length: 8 }, (_, i) => ({
    scenario: 'a',
    c1: i >> 2,
    c2: (i >> 1) & 1,
    c3: i & 1,
  }));
  const tree = sidTrees(all).get('a')!;
  const found = [];
  for (const target of all)
    if (await beamFinds(policy, { scenario: 'a' } as RetrievalSample['request'], target, tree, 1))
      found.push(target);
  assert.equal(found.length, 1);
  const { c1, c2, c3 } = found[0]!;
  const level = async (l: 0 | 1 | 2, prefix: number[]) => policy.decode({}, l, Int32Array.from(prefix), 1);
  const argmax = (row: Float32Array) => (row[0]! >= row[1]! ? 0 : 1);
  assert.equal(c1, argmax(await level(0, [])));
  assert.equal(c2, argmax(await level(1, [c1])));
  assert.equal(c3, argmax(await level(2, [c1, c2])));
});

test('the slice keeps the newest of each scenario, encoded in the order of their coming', () => {
  const slice = new HeldBackSlice(3, (s: StreamedSample) => `${s.exposure.scenario}:${s.exposure.requestId}`);
  const all = Array.from({ length: 60 }, (_, n) => sample(n));
  for (const [n, s] of all.entries()) {
    slice.add(s);
    if (n % 7 === 0) slice.encodeWaiting();
  }
  slice.encodeWaiting();
  for (const scenario of SCENARIOS)
    assert.deepEqual(
      slice.samples.get(scenario),
      all
        .filter((s) => s.exposure.scenario === scenario)
        .slice(-3)
        .map((s) => `${scenario}:${s.exposure.requestId}`),
    );
  assert.equal(slice.size, 9);
});

/** Codes that no SID begins with: as many as there are others. */
const UNUSED = NUM_CODES[0];
const layout = sidLayout(
  SCENARIOS,
  Object.fromEntries(SCENARIOS.map((s) => [s, [NUM_CODES[0] + UNUSED, NUM_CODES[1], NUM_CODES[2]] as const])),
);
const sidOfItem = (itemId: string) => {
  const at = itemId.lastIndexOf('-');
  return sidOf(itemId.slice(0, at), Number(itemId.slice(at + 1)));
};
const encode = (samples: readonly StreamedSample[]): RetrievalSample[] =>
  samples.map(({ exposure, history, item, sid }) => ({
    request: requestTensors({ ...exposure, history }, sidOfItem, { historyLength: 6, layout }),
    target: sid!,
    item: itemTensors({ scenario: exposure.scenario, features: item!, sid: sid! }, sidOfItem, { layout }),
    itemId: exposure.itemId,
  }));

const newTrainer = (seed: number, learningRate = 1e-2): Promise<RetrievalTrainer> =>
  createRetrievalTrainer({
    ...{ preset: 'tiny', scenarios: SCENARIOS, numCodes: layout.numCodes, seed },
    optimizer: { learningRate, warmupSteps: 0 },
  });
async function train(trainer: RetrievalTrainer, from: number, steps: number): Promise<void> {
  for (let step = 0; step < steps; step++)
    await trainer.step({
      samples: encode(Array.from({ length: 16 }, (_, i) => sample(from + step * 16 + i))),
    });
}
/** Rules as the process reads them from its environment. */
const rulesOf = (env: Record<string, string>) =>
  gateRules(trainerConfig({ ONEMALL_BEAM_WIDTHS: '64,8', ...env }), SCENARIOS);
const exported = (trainer: RetrievalTrainer, step: number) =>
  trainer.exportPolicy({
    policyVersion: `${step}-0`,
    codebookVersions: Object.fromEntries(SCENARIOS.map((s) => [s, 1])),
    beamWidths: [8],
  });

test('each setting of the gate is the rule of its name', () => {
  const env = { ONEMALL_GATE_REQUESTS: '61', ONEMALL_GATE_MIN_REQUESTS: '15' };
  const falls = { ONEMALL_GATE_MAX_RECALL_FALL: '0.2', ONEMALL_GATE_MAX_LEGALITY_FALL: '0.3' };
  assert.deepEqual(rulesOf({ ...env, ...falls }), {
    ...{ perScenario: 21, minRequests: 15, beamWidth: 8 },
    ...{ maxRecallFall: 0.2, maxLegalityFall: 0.3 },
  });
});

test('a policy made worse is refused; trained further it passes, and is what the next one is held to', async (t) => {
  const trainer = await newTrainer(1);
  const broken = await newTrainer(1, 0.5);
  let shelves: readonly string[] = SCENARIOS;
  const newGate = () =>
    new RecallGate({
      rules: rulesOf({
        ...{ ONEMALL_GATE_REQUESTS: '60', ONEMALL_GATE_MIN_REQUESTS: '15' },
        ...{ ONEMALL_GATE_MAX_RECALL_FALL: '0.2', ONEMALL_GATE_MAX_LEGALITY_FALL: '1' },
      }),
      own: {
        codebookVersions: {},
        encode: (one) => encode([one])[0] ?? null,
        sidsNow: () => shelves.flatMap((s) => Array.from({ length: 60 }, (_, i) => sidOf(s, i))),
      },
    });
  const [gate, ofRooms] = [newGate(), newGate()];
  t.after(() => Promise.all([trainer, broken, gate, ofRooms].map((one) => one.close())));
  const stopping = new AbortController();
  const judge = async (of: RetrievalTrainer) => gate.judge(await exported(of, of.steps), stopping.signal);

  const unmeasured = await judge(trainer);
  assert.equal(unmeasured.outcome, 'publish');
  assert.match(unmeasured.reasons[0]!, /0 of 15 held-back requests/);
  await gate.accepted();
  assert.equal((await judge(trainer)).outcome, 'wait', 'nothing replaces a published policy unmeasured');

  for (let n = 0; n < 120; n++) gate.see(sample(50_000 + n));
  gate.encodeWaiting();
  await train(trainer, 0, 150);
  const better = await judge(trainer);
  assert.equal(better.outcome, 'publish', better.reasons.join());
  const all = better.figures[0]!.values;
  assert.ok(all.beam_recall! > all.beam_recall_published! + 0.2, JSON.stringify(all));
  assert.deepEqual(better.figures.map((row) => row.scenario).sort(), ['', ...SCENARIOS]);
  await gate.accepted();

  await broken.restore(await trainer.state());
  await train(broken, 2_000, 3);
  const worse = await judge(broken);
  assert.equal(worse.outcome, 'refuse');
  assert.match(worse.reasons.join(), /beam_recall is 0\.\d+ after 0\.\d+, a fall of more than 0\.2/);
  assert.equal(worse.figures[0]!.values.beam_recall_published, all.beam_recall);

  await train(trainer, 4_000, 5);
  const next = await judge(trainer);
  assert.equal(next.outcome, 'publish', next.reasons.join());
  assert.equal(
    next.figures[0]!.values.beam_recall_published,
    all.beam_recall,
    'the refused one is not compared with',
  );

  // rooms that users took and that have closed since: what they took can still be found, but it is not legal any more
  for (let n = 0; n < 120; n++) {
    const one = sample(50_000 + n);
    if (one.exposure.scenario === 'live_stream') ofRooms.see(one);
  }
  ofRooms.encodeWaiting();
  const judgeRooms = async () =>
    (await ofRooms.judge(await exported(trainer, trainer.steps), stopping.signal)).figures[0]!.values;
  assert.ok((await judgeRooms()).legality! > 0.2);
  shelves = ['product_card'];
  const closed = await judgeRooms();
  assert.equal(closed.legality, 0);
  assert.ok(closed.beam_recall! > 0.2, `recall ${closed.beam_recall}`);

  stopping.abort();
  await assert.rejects(judge(trainer), { name: 'AbortError' });
});

test('a policy that points to codes nobody has is refused, whichever scenario does so and however good its recall', async (t) => {
  const trainer = await newTrainer(1);
  const gate = new RecallGate({
    rules: rulesOf({
      ...{ ONEMALL_GATE_REQUESTS: '180', ONEMALL_GATE_MIN_REQUESTS: '40' },
      ...{ ONEMALL_GATE_MAX_RECALL_FALL: '1', ONEMALL_GATE_MAX_LEGALITY_FALL: '0.5' },
    }),
    own: {
      codebookVersions: {},
      encode: (one) => encode([one])[0] ?? null,
      sidsNow: () => SCENARIOS.flatMap((s) => Array.from({ length: 60 }, (_, i) => sidOf(s, i))),
    },
  });
  t.after(() => Promise.all([trainer.close(), gate.close()]));
  const { signal } = new AbortController();
  const judge = async () => gate.judge(await exported(trainer, trainer.steps), signal);
  // The scenarios come one after the other, as in a slice whose first scenario has enough requests by itself.
  const heldBack = Array.from({ length: 360 }, (_, n) => sample(50_000 + n));
  for (const scenario of SCENARIOS)
    for (const one of heldBack) if (one.exposure.scenario === scenario) gate.see(one);
  gate.encodeWaiting();
  await train(trainer, 0, 150);
  const learned = await judge();
  assert.equal(learned.outcome, 'publish', learned.reasons.join());
  for (const { scenario, values } of learned.figures)
    assert.ok(values.legality! > 0.6, `legality of ${scenario || 'all'} is ${values.legality}`);
  await gate.accepted();

  // Of the second scenario alone: each unused first code gets five times the score of a used one.
  const spoilt = await trainer.state();
  const head = spoilt.tensors.get('head.level1')!;
  const begin = layout.offsets.get(SCENARIOS[1])![0];
  for (let row = 0; row < head.length; row += layout.rows[0])
    for (let code = 0; code < UNUSED; code++)
      head[row + begin + NUM_CODES[0] + code] = 5 * head[row + begin + code]!;
  await trainer.restore(spoilt);
  const verdict = await judge();
  assert.equal(verdict.outcome, 'refuse');
  assert.equal(verdict.reasons.length, 1, verdict.reasons.join('; '));
  assert.match(
    verdict.reasons[0]!,
    /^legality\.product_card is 0(\.\d+)? after 0\.\d+, a fall of more than 0\.5/,
  );
  const [all] = verdict.figures;
  assert.equal(
    all!.values.beam_recall,
    learned.figures[0]!.values.beam_recall,
    'what exists is found as before',
  );
  const legality = (scenario: string) =>
    verdict.figures.find((row) => row.scenario === scenario)!.values.legality;
  for (const scenario of [SCENARIOS[0], SCENARIOS[2]])
    assert.equal(
      legality(scenario),
      learned.figures.find((row) => row.scenario === scenario)!.values.legality,
    );
  assert.ok(Math.abs(all!.values.legality! - SCENARIOS.reduce((sum, s) => sum + legality(s)!, 0) / 3) < 1e-9);
});
