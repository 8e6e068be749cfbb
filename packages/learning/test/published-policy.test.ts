import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as ort from 'onnxruntime-node';
import { cpuSession } from '../src/engine/ort-sessions.ts';
import {
  type AskedCodes,
  createRankerTrainer,
  createRetrievalTrainer,
  loadItemTower,
  loadPolicy,
  PublishedModelError,
  retrievalPresets,
} from '../src/index.ts';
import { NUM_CODES, randomSamples, randomSource, SCENARIOS } from './synthetic.ts';

async function trained(queries: number = retrievalPresets.tiny.queries) {
  const trainer = await createRetrievalTrainer({
    preset: { ...retrievalPresets.tiny, queries },
    scenarios: SCENARIOS,
    numCodes: NUM_CODES,
    seed: 3,
  });
  const random = randomSource(11);
  for (let i = 0; i < 5; i++)
    await trainer.step({ samples: randomSamples(random, 16, trainer.historyLength) });
  const files = await trainer.exportPolicy({
    policyVersion: '5-abc',
    codebookVersions: { product_card: 1, short_video: 1, live_stream: 2 },
    beamWidths: [4, 8],
  });
  return { trainer, random, files };
}

test('a published policy gives the log-probabilities that the trainer gives', () => checkPolicy());

test('so does one without Query-Formers, whose decoder reads the events that are there', () =>
  checkPolicy(0));

async function checkPolicy(queries?: number): Promise<void> {
  const { trainer, random, files } = await trained(queries);
  const policy = await loadPolicy(files);
  assert.deepEqual(policy.manifest.beamWidths, [4, 8]);
  assert.equal(policy.manifest.codebookVersions.live_stream, 2);
  const samples = randomSamples(random, 20, trainer.historyLength);
  const { tokenLogProbs, predictions } = await trainer.evaluate(samples);
  let worst = 0;
  for (const [i, { request, target }] of samples.entries()) {
    const context = await policy.encode(request);
    const codes = [target.c1, target.c2, target.c3];
    for (const level of [0, 1, 2] as const) {
      // several rows at once, the true prefix in the last one, so that widths and padding take part
      const rows = 1 + (i % 11);
      const prefixes = new Int32Array(rows * level);
      for (let l = 0; l < level; l++) prefixes[(rows - 1) * level + l] = codes[l]!;
      const logProbs = await policy.decode(context, level, prefixes, rows);
      const count = NUM_CODES[target.scenario]![level];
      assert.equal(logProbs.length, rows * count);
      const row = logProbs.subarray((rows - 1) * count);
      worst = Math.max(worst, Math.abs(row[codes[level]!]! - tokenLogProbs[i * 3 + level]!));
      const best = row.indexOf(row.reduce((a, b) => Math.max(a, b)));
      assert.equal(best, predictions[i * 3 + level]);
      const total = row.reduce((sum, p) => sum + Math.exp(p), 0);
      assert.ok(Math.abs(total - 1) < 1e-5, `probabilities of ${target.scenario} sum to ${total}`);
    }
  }
  assert.ok(worst < 1e-4, `largest difference ${worst}`);

  const tower = await loadItemTower(files);
  const items = samples.map((s) => s.item);
  const { dim, vectors } = await trainer.embedItems(items);
  const published = await tower.embed(items);
  assert.equal(published.length, items.length * dim);
  published.forEach((value, i) => {
    assert.ok(Math.abs(value - vectors[i]!) < 1e-5);
  });
  await Promise.all([policy.close(), tower.close(), trainer.close()]);
}

test('a beam that widens from level to level has the log-probabilities of its prefixes one by one', async () => {
  const { trainer, random, files } = await trained();
  await trainer.close();
  const policy = await loadPolicy(files);
  for (const [seconds, thirds] of [
    [3, 20],
    [8, 9],
    [17, 2],
  ] as const) {
    const request = randomSamples(random, 1, policy.manifest.historyLength)[0]!.request;
    const context = await policy.encode(request);
    const numCodes = policy.manifest.numCodes[context.scenario]!;
    const decoding = policy.begin(context);
    const close = (found: number, expected: number): void => assert.ok(Math.abs(found - expected) < 1e-4);
    /** Of each row other codes, of some none. */
    const asks = (rows: number, count: number): AskedCodes => {
      const from = Int32Array.from({ length: rows }, () => random.int(count));
      return {
        codes: Int32Array.from({ length: count }, (_, i) => (i * 5 + 3) % count),
        from,
        to: from.map((at) => at + random.int(count - at + 1)),
      };
    };
    const checkRows = async (
      level: 1 | 2,
      found: Float32Array,
      { codes, from, to }: AskedCodes,
      prefix: (row: number) => Int32Array,
    ): Promise<void> => {
      let at = 0;
      for (let row = 0; row < from.length; row++) {
        const alone = await policy.decode(context, level, prefix(row), 1);
        for (let i = from[row]!; i < to[row]!; i++) close(found[at++]!, alone[codes[i]!]!);
      }
      assert.equal(at, found.length);
    };
    const first = await decoding.first();
    assert.equal(first.length, numCodes[0]);
    (await policy.decode(context, 0, new Int32Array(0), 1)).forEach((p, code) => {
      close(first[code]!, p);
    });
    const c1 = Int32Array.from({ length: seconds }, () => random.int(numCodes[0]));
    const asked2 = asks(seconds, numCodes[1]);
    const second = await decoding.next(1, c1, new Int32Array(seconds), asked2);
    await checkRows(1, second, asked2, (row) => Int32Array.of(c1[row]!));
    const parents = Int32Array.from({ length: thirds }, () => random.int(seconds));
    const c2 = parents.map(() => random.int(numCodes[1]));
    const asked3 = asks(thirds, numCodes[2]);
    const third = await decoding.next(2, c2, parents, asked3);
    await checkRows(2, third, asked3, (row) => Int32Array.of(c1[parents[row]!]!, c2[row]!));
    assert.equal(decoding.user!.length, policy.manifest.dim);
    assert.ok(Math.abs(Math.hypot(...decoding.user!) - 1) < 1e-5);
    decoding.release();
  }
  await policy.close();
});

test("the README's table of published files is what exports write, with inputs and outputs", async () => {
  const { trainer, files } = await trained();
  const ranker = await createRankerTrainer({ preset: 'tiny', scenarios: SCENARIOS, seed: 3 });
  const written = [...files, ...(await ranker.exportRanker({ rankerVersion: 'r' }))];
  await Promise.all([trainer.close(), ranker.close()]);
  const actual: Record<string, string[][]> = {};
  for (const [name, bytes] of written) {
    if (!name.endsWith('.onnx')) continue;
    const session = await ort.InferenceSession.create(bytes, cpuSession(1));
    actual[name] = [session.inputNames.toSorted(), session.outputNames.toSorted()];
    await session.release();
  }

  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const section = readme.split(/^## /m).find((part) => part.startsWith('Published files'))!;
  const named = (cell: string) => Array.from(cell.matchAll(/`(.+?)`/g), ([, name]) => name!).sort();
  const described: typeof actual = {};
  for (const [, file, inputs, outputs] of section.matchAll(/^\| (\S+\.onnx) \| (.+) \| (.+) \|$/gm))
    for (const width of file!.includes('-W') ? [4, 8] : [''])
      described[file!.replace('W', `${width}`)] = [named(inputs!), named(outputs!)];
  assert.deepEqual(described, actual);
});

test('corrupt, incomplete and foreign files are named', async () => {
  const { trainer, files } = await trained();
  await trainer.close();
  const changed = (change: (copy: Map<string, Uint8Array>) => void) => {
    const copy = new Map(files);
    change(copy);
    return loadPolicy(copy);
  };
  const manifest = JSON.parse(new TextDecoder().decode(files.get('policy.json')));
  const withManifest = (patch: object) =>
    changed((f) => f.set('policy.json', new TextEncoder().encode(JSON.stringify({ ...manifest, ...patch }))));
  const named = (pattern: RegExp) => (error: unknown) =>
    error instanceof PublishedModelError && pattern.test(error.message);
  await assert.rejects(
    changed((f) => f.delete('policy.json')),
    named(/no policy.json/),
  );
  await assert.rejects(
    changed((f) => f.set('policy.json', Buffer.from('{'))),
    named(/no JSON/),
  );
  await assert.rejects(withManifest({ format: 99 }), named(/format 99, this code reads format 2/));
  await assert.rejects(withManifest({ model: 'RANKER' }), named(/describes a RANKER/));
  await assert.rejects(withManifest({ numCodes: { product_card: [1, 2] } }), named(/numCodes must be/));
  await assert.rejects(
    changed((f) => f.delete('decode-2-8.onnx')),
    named(/no decode-2-8.onnx/),
  );
  await assert.rejects(
    changed((f) => f.set('context.onnx', f.get('context.onnx')!.subarray(0, 1000))),
    named(/context.onnx \(1000 bytes\) is no ONNX graph/),
  );
});
