/** Inputs that are away, undecided, aborted, poisoned, evolved, ahead of their time or ten times there. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { partitionOf } from '@onemall/kafka-io';
import { SeededRandom } from '@onemall/service-kit';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import avsc from 'avsc';
import { Kafka, logLevel, Partitioners, type Producer, type Transaction } from 'kafkajs';
import { type Arrival, OUT_OF_ORDERNESS_MS } from '../../services/sample-assembler/test/traffic.ts';
import { type Instance, type Lab, LOGS, NUM_PARTITIONS } from './lab.ts';
import { underFault, verdictUnderFault } from './under-fault.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

async function withProducers(
  count: number,
  lab: Lab,
  work: (producers: Producer[]) => Promise<void>,
): Promise<void> {
  const kafka = new Kafka({ brokers: stack.brokers.split(','), logLevel: logLevel.ERROR });
  const producers = Array.from({ length: count }, (_, i) =>
    kafka.producer({
      transactionalId: `${lab.groupId}-writer-${i}`,
      idempotent: true,
      maxInFlightRequests: 1,
      createPartitioner: Partitioners.DefaultPartitioner,
    }),
  );
  for (const producer of producers) await producer.connect();
  try {
    await work(producers);
  } finally {
    for (const producer of producers) await producer.disconnect();
  }
}

/** Writes events inside a transaction of another program. */
async function write(lab: Lab, transaction: Transaction, arrivals: readonly Arrival[]): Promise<void> {
  for (const [topic, mine] of Map.groupBy(arrivals, (a) => a.topic))
    await transaction.send({
      topic: lab.physical(topic),
      messages: await Promise.all(
        mine.map(async ({ value }) => ({
          key: value.userId,
          value: await lab.scene.io.encode(topic, value as never),
          partition: partitionOf(Buffer.from(value.userId), NUM_PARTITIONS),
        })),
      ),
    });
}

/** No further may the watermark be that knows these events alone. */
const reachable = (arrivals: readonly Arrival[]): number =>
  Math.max(...arrivals.map((a) => a.value.eventTimeMs)) - OUT_OF_ORDERNESS_MS;

/** Long enough that everything that could be read and released has been: so many fetches were answered. */
async function keepsAsking(instance: Instance): Promise<void> {
  const enough = instance.proxy.numAnswers('Fetch') + 60;
  await waitFor(() => instance.proxy.numAnswers('Fetch') >= enough, {
    what: 'sixty answers to fetches',
    timeoutMs: 60_000,
  });
}

/** Operators can see that the watermark of each partition waits for this input and for no other. */
async function saysThatItWaitsFor(instance: Instance, topic: (typeof LOGS)[number]): Promise<void> {
  const gauges = Array.from({ length: NUM_PARTITIONS }, (_, p) =>
    LOGS.map((log) => [`waits_for_${log}_p${p}`, Number(log === topic)] as const),
  ).flat();
  await waitFor(
    async () => {
      const { values } = await instance.status();
      return gauges.every(([name, expected]) => values[name] === expected);
    },
    { what: `gauges to name ${topic} in each partition`, timeoutMs: 30_000 },
  );
}

describe('inputs', { concurrency: 2 }, () => {
  test("invariant 11: while one input's leader is away nothing closes past it", () =>
    underFault(stack, { seed: 31 }, async ({ lab, before: first, during }) => {
      const instance = await lab.startAlone();
      await lab.someOut();
      instance.proxy.loseLeaders([lab.physical('clicks')]);
      await lab.send(during);
      await keepsAsking(instance);
      const mostMs = reachable(first);
      for (const watermarkMs of await lab.watermarks())
        assert.ok(
          watermarkMs <= mostMs,
          `${watermarkMs - mostMs} ms past what was there before the leader went`,
        );
      assert.ok((await instance.status()).lag! > 0);
      await saysThatItWaitsFor(instance, 'clicks');
      instance.proxy.findLeaders();
    }));

  test('invariant 11: an open transaction on an input closes nothing', () =>
    underFault(stack, { seed: 32 }, async ({ lab, before: first, during }) => {
      const instance = await lab.startAlone();
      await lab.someOut();
      await withProducers(1, lab, async ([producer]) => {
        const transaction = await producer!.transaction();
        const clicks = during.filter((a) => a.topic === 'clicks');
        await write(lab, transaction, clicks);
        await lab.send(during.filter((a) => a.topic !== 'clicks'));
        await keepsAsking(instance);
        const mostMs = reachable(first);
        const touched = new Set(clicks.map((c) => partitionOf(Buffer.from(c.value.userId), NUM_PARTITIONS)));
        assert.equal(touched.size, NUM_PARTITIONS);
        for (const watermarkMs of await lab.watermarks())
          assert.ok(watermarkMs <= mostMs, `${watermarkMs - mostMs} ms past the open transaction`);
        assert.ok(
          (await instance.status()).lag! >= clicks.length,
          'the lag counts what is not committed yet',
        );
        await saysThatItWaitsFor(instance, 'clicks');
        await transaction.commit();
      });
    }));

  test('overlapping aborted transactions leave no trace', async () => {
    const ghosts: string[] = [];
    await underFault(stack, { seed: 33 }, async ({ lab, during }) => {
      await lab.startAlone();
      await withProducers(3, lab, async (producers) => {
        const random = new SeededRandom(33);
        for (let at = 0; at < during.length; ) {
          const endsMs = during[at]!.arrivesMs + 400;
          const slice = during.slice(at).filter((a) => a.arrivesMs < endsMs);
          at += slice.length;
          const ghostOf = (a: Arrival): Arrival => {
            const id = `ghost-${ghosts.length}`;
            ghosts.push(id);
            return a.topic === 'exposures'
              ? { ...a, value: { ...a.value, exposureId: id } }
              : ({ ...a, value: { ...a.value, actionId: id } } as Arrival);
          };
          const [first, real, last] = (await Promise.all(producers.map((p) => p.transaction()))) as [
            Transaction,
            Transaction,
            Transaction,
          ];
          await write(lab, first, slice.map(ghostOf));
          await write(lab, real, slice);
          await write(lab, last, slice.map(ghostOf));
          const ends = [() => first.abort(), () => real.commit(), () => last.abort()];
          for (const end of random.shuffle(ends)) await end();
        }
      });
      const samples = await lab.scene.read('training-samples');
      const shown = new Set(samples.map((s) => s.value!.exposure.exposureId));
      assert.ok(ghosts.length > 500);
      assert.deepEqual(
        ghosts.filter((id) => shown.has(id)),
        [],
      );
    });
  });

  test('poison bytes and unknown schema ids in mid-stream: each is one dead letter, through a crash', async () => {
    const verdict = await verdictUnderFault(stack, { seed: 34 }, async ({ lab, during }) => {
      const first = await lab.startAlone();
      const poison = (n: number) =>
        (['exposures', 'clicks', 'buys'] as const).map((topic, i) => ({
          topic,
          key: `user-${n}`,
          // Not in wire format, an id that the registry does not know, a known id with bytes of nothing.
          valueBytes: [Buffer.from('poison'), Buffer.from([0, 0x7f, 0, 0, n, 1, 2]), Buffer.alloc(0)][
            (i + n) % 3
          ]!,
        }));
      const hold = first.proxy.hold('EndTxn', 'request', { skip: 5 });
      for (let n = 0; n < 10; n++) {
        await lab.scene.writer.send(poison(n));
        await lab.send(during.slice((n * during.length) / 10, ((n + 1) * during.length) / 10));
      }
      await hold.held;
      await first.kill();
      await lab.startAlone();
      await waitFor(async () => (await lab.scene.count('dead-letters')) >= 30, {
        what: 'thirty dead letters',
        timeoutMs: 60_000,
      });
      const letters = await lab.scene.read('dead-letters');
      const places = letters.map(({ value }) => `${value!.topic} ${value!.partition} ${value!.offset}`);
      assert.equal(new Set(places).size, 30);
      assert.equal(places.length, 30);
      assert.deepEqual([...new Set(letters.map(({ value }) => value!.reason))].sort(), [
        'NOT_WIRE_FORMAT',
        'UNKNOWN_SCHEMA',
      ]);
    });
    assert.equal(verdict.fates.wrong, 0);
  });

  test('a schema evolved in mid-stream: old and new exposures side by side give equal samples', () =>
    underFault(stack, { seed: 35 }, async ({ lab, during }) => {
      await lab.startAlone();
      const file = path.join(import.meta.dirname, '../../schemas/Exposure.avsc');
      const schema = JSON.parse(readFileSync(file, 'utf8')) as { fields: unknown[] };
      // In the middle, so that no reader that ignores the writer's schema gets the fields after it right.
      schema.fields.splice(3, 0, { name: 'channel', type: 'string', default: '' });
      const response = await fetch(
        `${stack.registryUrl}/subjects/${lab.physical('exposures')}-value/versions`,
        {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ schema: JSON.stringify(schema) }),
        },
      );
      assert.ok(response.ok, await response.clone().text());
      const { id } = (await response.json()) as { id: number };
      const type = avsc.Type.forSchema(schema as never);
      const head = Buffer.alloc(5);
      head.writeInt32BE(id, 1);
      for (const [i, arrival] of during.entries())
        if (arrival.topic !== 'exposures' || i % 2 === 0) await lab.send([arrival]);
        else
          await lab.scene.writer.send([
            {
              topic: 'exposures',
              key: arrival.value.userId,
              valueBytes: Buffer.concat([head, type.toBuffer({ ...arrival.value, channel: 'app' })]),
            },
          ]);
    }));

  test('clocks that jump ahead: within the allowed skew they make others late, beyond it they are dead letters', async () => {
    const verdict = await verdictUnderFault(stack, { seed: 36, mayBeLate: true }, async ({ lab, during }) => {
      const instance = await lab.startAlone();
      const jumps = during.map((arrival, i): Arrival => {
        // 120 s ahead of the log's clock is more than the 60 s that are allowed.
        const aheadMs = i % 211 === 0 ? Date.now() + 120_000 : i % 173 === 0 ? Date.now() + 15_000 : 0;
        if (aheadMs === 0) return arrival;
        return { ...arrival, value: { ...arrival.value, eventTimeMs: aheadMs } } as Arrival;
      });
      const tooFar = jumps.filter((j) => j.value.eventTimeMs > Date.now() + 60_000);
      assert.ok(tooFar.length > 2);
      await lab.send(jumps.filter((j) => !tooFar.includes(j)));
      await lab.scene.sendTraffic(tooFar);
      await waitFor(async () => (await instance.status()).deadLetters >= tooFar.length, {
        what: 'the dead letters',
        timeoutMs: 60_000,
      });
      for (const watermarkMs of await lab.watermarks()) assert.ok(watermarkMs < Date.now() + 60_000);
    });
    assert.ok(verdict.fates.late > 0);
    assert.ok(verdict.fates.dead > 0);
  });

  test('everything ten times: every copy is dropped and counted, through a crash', async () => {
    const random = new SeededRandom(37);
    const tenfold = (arrivals: Arrival[]): Arrival[] =>
      arrivals
        .flatMap((a) =>
          Array.from({ length: 10 }, (_, n) => ({
            ...a,
            arrivesMs: a.arrivesMs + (n === 0 ? 0 : random.int(8_000)),
          })),
        )
        .sort((a, b) => a.arrivesMs - b.arrivesMs);
    const traffic = { numRequests: 250, copyShare: 0 };
    const verdict = await verdictUnderFault(
      stack,
      { seed: 37, traffic, change: tenfold },
      async ({ lab, during }) => {
        const first = await lab.startAlone();
        await lab.someOut();
        await lab.send(during);
        await first.kill();
        await lab.startAlone();
      },
    );
    assert.equal(verdict.fates.duplicate, 9 * (verdict.fates.counted + verdict.fates.late - NUM_PARTITIONS));
  });

  test('more state than the limit: partitions read slowly and say so, and every sample comes', async () => {
    const floats = Array.from({ length: 12_000 }, (_, i) => i / 8);
    const withLargeFeatures = (arrivals: Arrival[]): Arrival[] =>
      arrivals.map((a) =>
        a.topic === 'exposures' ? { ...a, value: { ...a.value, requestFeatures: { ints: [], floats } } } : a,
      );
    await underFault(
      stack,
      { seed: 38, env: { ONEMALL_MAX_STATE_MB: '16' }, change: withLargeFeatures },
      async ({ lab, during }) => {
        await lab.send(during);
        const instance = await lab.startAlone();
        await waitFor(async () => (await instance.status()).values.partitions_slowed === NUM_PARTITIONS, {
          what: 'all partitions to read slowly',
          timeoutMs: 60_000,
        });
      },
    );
  });
});
