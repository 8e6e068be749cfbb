import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NumCodes, sidLayout } from '@onemall/features';
import {
  type CodeMatch,
  createRetrievalTrainer,
  forkState,
  matchedShares,
  type RetrievalSample,
  StateError,
} from '../src/index.ts';
import { LAYOUT, NUM_CODES, randomSamples, randomSource, SCENARIOS } from './synthetic.ts';

/** One more code at two levels, one fewer at another. */
const NEW_CODES: NumCodes = { ...NUM_CODES, product_card: [26, 24, 31], short_video: [30, 25, 32] };
const NEW_LAYOUT = sidLayout(SCENARIOS, NEW_CODES);
const create = (numCodes: NumCodes, seed: number) =>
  createRetrievalTrainer({ preset: 'tiny', scenarios: SCENARIOS, numCodes, seed });

/** Codes keep their numbers, but some: those go round by one; what is new has no forerunner. */
const match: CodeMatch = Object.fromEntries(
  SCENARIOS.map((scenario) => [
    scenario,
    [0, 1, 2].map((level) => {
      const [had, has] = [NUM_CODES[scenario]![level]!, NEW_CODES[scenario]![level]!];
      const codes = Int32Array.from({ length: has }, (_, code) => (code < had ? code : -1));
      [codes[0], codes[1], codes[2]] = [1, 2, 0];
      codes[5] = -1;
      return codes;
    }) as unknown as [Int32Array, Int32Array, Int32Array],
  ]),
);

/** A sample of the old codebooks as the new ones number it; null where it uses a code that does not go on. */
function renumbered(sample: RetrievalSample): RetrievalSample | null {
  const newCode = (scenario: string, level: number, old: number) => match[scenario]![level]!.indexOf(old);
  const rows = (codes: Int32Array): Int32Array =>
    codes.map((row, i) => {
      if (row < 0) return -1;
      const level = i % 3;
      const scenario = SCENARIOS.findLast((s) => LAYOUT.offsets.get(s)![level]! <= row)!;
      const code = newCode(scenario, level, row - LAYOUT.offsets.get(scenario)![level]!);
      return code < 0 ? -2 : NEW_LAYOUT.offsets.get(scenario)![level]! + code;
    });
  const { request, item, target } = sample;
  const { exposure, click, buy } = request.behaviours;
  const behaviour = (b: typeof exposure) => ({ ...b, codes: rows(b.codes) });
  const behaviours = { exposure: behaviour(exposure), click: behaviour(click), buy: behaviour(buy) };
  const codes = rows(item.codes);
  const { scenario } = target;
  const [c1, c2, c3] = [target.c1, target.c2, target.c3].map((c, level) => newCode(scenario, level, c));
  const lost = [codes, ...Object.values(behaviours).map((b) => b.codes), [c1! - 1, c2! - 1, c3! - 1]];
  if (lost.some((all) => all.includes(-2))) return null;
  return {
    ...sample,
    request: { ...request, behaviours },
    item: { ...item, codes },
    target: { scenario, c1: c1!, c2: c2!, c3: c3! },
  };
}

test('on matched codes the fork predicts what the old model predicts but for the share that new codes take', async (t) => {
  const [old, next] = [await create(NUM_CODES, 3), await create(NEW_CODES, 9)];
  t.after(() => Promise.all([old.close(), next.close()]));
  const random = randomSource(4);
  for (let i = 0; i < 30; i++) await old.step({ samples: randomSamples(random, 16, old.historyLength) });
  const fresh = await next.state();
  const state = await old.state();
  const forked = forkState(state, fresh, match);
  await next.restore(forked);
  assert.equal(next.steps, 30);

  const samples = randomSamples(random, 400, old.historyLength);
  const pairs = samples.flatMap((s) => {
    const as = renumbered(s);
    return as ? [{ s, as }] : [];
  });
  assert.ok(pairs.length >= 20, `${pairs.length} samples use matched codes only`);
  const was = await old.evaluate(pairs.map((p) => p.s));
  const is = await next.evaluate(pairs.map((p) => p.as));
  for (const level of [0, 1, 2]) {
    const byPair = pairs.map((_, i) => is.tokenLogProbs[i * 3 + level]! - was.tokenLogProbs[i * 3 + level]!);
    // One or two fresh codes among some twenty: the normalizer moves by about 1 / 20; a wrong row moves by whole nats.
    for (const moved of byPair)
      assert.ok(Math.abs(moved) < 0.5, `log p moved by ${moved} at level ${level + 1}`);
  }
  const steady = await next.step({ samples: pairs.slice(0, 16).map((p) => p.as) });
  assert.ok(Number.isFinite(steady.loss.total), 'it trains on');
});

test('rows and columns go over with their moments, unmatched ones are fresh with none, the rest is the old state', async (t) => {
  const [old, next] = [await create(NUM_CODES, 3), await create(NEW_CODES, 9)];
  t.after(() => Promise.all([old.close(), next.close()]));
  const random = randomSource(5);
  for (let i = 0; i < 3; i++) await old.step({ samples: randomSamples(random, 16, old.historyLength) });
  const [state, fresh] = [await old.state(), await next.state()];
  const { tensors } = forkState(state, fresh, match);
  let compared = 0;
  for (const [name, values] of tensors) {
    const found = /^(?:m\.|v\.)?(sid|head)\.level([123])$/.exec(name);
    const from = state.tensors.get(name)!;
    if (!found) {
      assert.deepEqual(values, from, name);
      continue;
    }
    const level = Number(found[2]) - 1;
    const [had, has] = [LAYOUT.rows[level]!, NEW_LAYOUT.rows[level]!];
    const dim = values.length / has;
    const at = (all: Float32Array, rows: number, row: number, d: number) =>
      found[1] === 'sid' ? all[row * dim + d]! : all[d * rows + row]!;
    for (const scenario of SCENARIOS)
      for (const [code, before] of match[scenario]![level]!.entries()) {
        const row = NEW_LAYOUT.offsets.get(scenario)![level]! + code;
        for (let d = 0; d < dim; d++) {
          const expected =
            before >= 0
              ? at(from, had, LAYOUT.offsets.get(scenario)![level]! + before, d)
              : /^[mv]\./.test(name)
                ? 0
                : at(fresh.tensors.get(name)!, has, row, d);
          assert.equal(at(values, has, row, d), expected, `${name} ${scenario} ${code}`);
          compared++;
        }
      }
  }
  assert.ok(compared > 10_000);
  assert.deepEqual(matchedShares({ a: [Int32Array.of(0, -1), Int32Array.of(-1), Int32Array.of(1, 0)] }), {
    a: [0.5, 0, 1],
  });
});

test('a match that does not fit is refused by scenario and level', async (t) => {
  const old = await create(NUM_CODES, 3);
  t.after(() => old.close());
  const state = await old.state();
  const same = Object.fromEntries(
    SCENARIOS.map((s) => [s, NUM_CODES[s]!.map((k) => Int32Array.from({ length: k }, (_, i) => i))]),
  ) as unknown as CodeMatch;
  assert.deepEqual(forkState(state, state, same), state);
  const spoilt = (spoil: (codes: Int32Array) => Int32Array): CodeMatch => ({
    ...same,
    live_stream: [same.live_stream![0], spoil(same.live_stream![1].slice()), same.live_stream![2]],
  });
  const refused: [CodeMatch, RegExp][] = [
    [spoilt((c) => c.slice(1)), /live_stream, level 2, has 23 codes, the new codebook 24/],
    [spoilt((c) => c.fill(24, 3, 4)), /gives code 3 the old code 24, outside 0\.\.23/],
    [spoilt((c) => c.fill(7, 3, 4)), /gives the old code 7 twice/],
  ];
  for (const [wrong, message] of refused)
    assert.throws(
      () => forkState(state, state, wrong),
      (error: unknown) => error instanceof StateError && message.test(error.message),
    );
});
