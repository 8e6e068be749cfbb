import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Codebook, Metric, TopicName } from '@onemall/contracts';
import { encode, readCodebook, stackVectors } from '@onemall/quantization';
import { startTestStack } from '@onemall/testkit';
import { readTable } from '../src/adapters/read-table.ts';
import { ENQUEUE, runningJobs } from './running-jobs.ts';
import { item, sample } from './samples.ts';

const TOPICS: TopicName[] = ['items', 'codebooks', 'training-samples', 'retrieval-metrics', 'dead-letters'];
const vectorOf = (n: number) =>
  Array.from({ length: 8 }, (_, d) => Math.fround(Math.sin(1 + n * 12.9898 + d * 78.233)));

// Before the tests are named, since a machine without Redis skips them: the pipeline runs there without jobs.
const stack = await startTestStack({ redis: true });
after(() => stack.stop());
const skip =
  stack.redisUrl === null &&
  'jobs need Redis, and there is no redis-server here: apt-get install redis-server';

const running = (t: TestContext, more: Record<string, string> = {}) => runningJobs(stack, t, TOPICS, more);

/** A retriever that answers 503 to the first requests, then gives these items. */
async function retriever(t: TestContext, failures: number, items: string[]) {
  const bodies: { scenario: string; k: number; requestTimeMs: number; history: { clicks: unknown[] } }[] = [];
  let left = failures;
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk) => {
      text += chunk;
    });
    request.on('end', () => {
      assert.equal(request.url, '/retrieve');
      if (left-- > 0) return response.writeHead(503).end('{"error":"no policy yet"}');
      bodies.push(JSON.parse(text));
      response.end(
        JSON.stringify({
          policyVersion: 'p7',
          items: items.map((itemId) => ({ itemId, sid: { c1: 0, c2: 0, c3: 0 }, score: 0 })),
        }),
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies };
}

describe('job-runner', () => {
  test('train-codebooks publishes the next version with its artifact, and tells how far it is', {
    skip,
  }, async (t) => {
    const { kafka, writer, enqueue, artifacts, service } = await running(t);
    const items = Array.from({ length: 60 }, (_, n) => item(`p${n}`, vectorOf(n)));
    await writer.send(
      [...items, item('bad', [1])].map((value) => ({ topic: 'items', key: value.itemId, value })),
    );
    for (const version of [1, 2]) {
      const { code, stdout, stderr } = await enqueue('train-codebooks');
      assert.equal(code, 0, stderr + service.logTail());
      assert.match(stdout, /product_card, level 3 3\/3/);
      assert.match(stdout, /"refusedItems": 1/);
      const record: Codebook = (await readTable(kafka, 'codebooks')).get('product_card')!;
      assert.equal(record.codebookVersion, version);
      const codebook = readCodebook(await artifacts.get(record));
      assert.deepEqual([codebook.version, codebook.dim, codebook.scenario], [version, 8, 'product_card']);
      assert.equal((await encode(codebook, stackVectors([vectorOf(1)]))).length, 3);
      assert.ok(
        record.metrics.conflict! <= 1 && record.metrics.relativeError3! < record.metrics.relativeError1!,
      );
    }
  });

  test('a codebook that breaks a limit is refused: no record, no further attempt, the reason said', {
    skip,
  }, async (t) => {
    const { kafka, writer, enqueue, service } = await running(t, { ONEMALL_MAX_RELATIVE_ERROR: '0' });
    const items = Array.from({ length: 60 }, (_, n) => item(`p${n}`, vectorOf(n)));
    await writer.send(items.map((value) => ({ topic: 'items', key: value.itemId, value })));
    const { code, stderr } = await enqueue('train-codebooks');
    assert.equal(code, 1);
    assert.match(
      stderr,
      /Not published: product_card: the reconstruction error is 0\.\d+ .* at most 0 is allowed/,
    );
    assert.equal((await readTable(kafka, 'codebooks')).size, 0);
    assert.equal((await service.status()).values.jobs_failed, 1);
  });

  test('a job that fails is tried again, and measures what was asked', { skip }, async (t) => {
    const { url, bodies } = await retriever(t, 1, ['a', 'z', 'c']);
    const { kafka, writer, enqueue, service } = await running(t, { ONEMALL_RETRIEVER_URL: url });
    await writer.send(['a', 'b', 'c', 'd'].map((id) => ({ topic: 'items', key: id, value: item(id) })));
    const samples = [
      sample('r1', 0, 'a', { clicked: true, requestTimeMs: 5_000 }),
      sample('r1', 1, 'b'),
      sample('r2', 0, 'd', { clicked: true, requestTimeMs: 6_000 }),
      sample('r3', 0, 'c'),
    ];
    await writer.send(
      samples.map((value) => ({ topic: 'training-samples', key: value.exposure.userId, value })),
    );
    const { code, stdout, stderr } = await enqueue('evaluate-hit-rate');
    assert.equal(code, 0, stderr + service.logTail());
    assert.match(stdout, /"requests": 2/);
    assert.deepEqual(
      bodies.map((b) => [b.scenario, b.k, b.requestTimeMs, b.history.clicks.length]),
      [
        ['product_card', 500, 6_000, 1],
        ['product_card', 500, 5_000, 1],
      ],
    );
    const { values, version }: Metric = (await readTable(kafka, 'retrieval-metrics')).get('job-runner')!;
    assert.equal(version, 'p7');
    assert.equal(values.hr_viewed_50, (0.5 + 0) / 2);
    assert.equal(values.hr_clicked_50, (1 + 0) / 2);
    assert.equal(values.random_viewed_50, 1);
    const status = await service.status();
    assert.deepEqual([status.values.jobs_failed, status.values.jobs_done], [1, 1]);
  });

  test('without held-back clicks there is nothing to measure, and the job says so', { skip }, async (t) => {
    const { enqueue, kafka, service } = await running(t);
    const { code, stdout, stderr } = await enqueue('evaluate-hit-rate');
    assert.equal(code, 0, stderr + service.logTail());
    assert.match(
      stdout,
      /"nothingToMeasure": "0 held-back requests with a click are among the newest 0 samples/,
    );
    assert.equal((await readTable(kafka, 'retrieval-metrics')).size, 0);
    const { values } = await service.status();
    assert.deepEqual([values.jobs_done, values.jobs_failed ?? 0], [1, 0]);
  });

  test('a schedule starts jobs by itself', { skip }, async (t) => {
    const { url } = await retriever(t, 0, ['a']);
    const { kafka, writer } = await running(t, {
      ONEMALL_RETRIEVER_URL: url,
      ONEMALL_EVALUATE_HIT_RATE_EVERY_MS: '300',
    });
    const value = sample('r1', 0, 'a', { clicked: true });
    await writer.send([{ topic: 'training-samples', key: value.exposure.userId, value }]);
    const measured = Promise.withResolvers<Metric>();
    const table = await kafka.openTable({
      topic: 'retrieval-metrics',
      onRecord: (record) => record.value && measured.resolve(record.value),
      onError: measured.reject,
    });
    assert.equal((await measured.promise).values.hr_viewed_50, 1);
    await table.close();
  });

  test('an unknown job is named', { skip }, async (t) => {
    const { enqueue } = await running(t);
    const { code, stderr } = await enqueue('dance');
    assert.equal(code, 2);
    assert.match(
      stderr,
      /No job is called dance\. npm run job -- collect-pairs\|train-codebooks\|retokenize-catalogue\|retire-codebooks\|evaluate-hit-rate/,
    );
  });
});

test('without Redis it ends with one line that says what to do', async () => {
  const env = { ...process.env, ONEMALL_REDIS_URL: 'redis://127.0.0.1:1' };
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
  const run = (file: string, ...args: string[]) =>
    new Promise<{ code: unknown; stderr: string }>((resolve) => {
      execFile(process.execPath, [file, ...args], { env }, (error, _stdout, stderr) =>
        resolve({ code: error?.code, stderr }),
      );
    });
  for (const { code, stderr } of [await run(main), await run(ENQUEUE, 'train-codebooks')]) {
    assert.equal(code, 2);
    assert.match(
      stderr.trim(),
      /^(job-runner: )?jobs need Redis, and 127\.0\.0\.1:1 refuses connections .*ONEMALL_REDIS_URL/,
    );
    assert.equal(stderr.trim().split('\n').length, 1);
  }
});
