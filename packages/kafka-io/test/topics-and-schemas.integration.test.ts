/** Conformance of set-up on a real broker and registry: topics are as the table says, schemas change compatibly. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BadRecordError, fullSchema, topicConfig, topicSpec, WIRE_HEADER_BYTES } from '@onemall/contracts';
import { type RawRecord, SchemaRefusedError, TopicRefusedError } from '../src/index.ts';
import { Bench, click, item, RETENTION, until } from './harness.ts';

let bench: Bench;
before(async () => {
  bench = await Bench.start();
});
after(() => bench.stop());

const TOPIC = 2;
const refused = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof TopicRefusedError, String(error));
  assert.match(error.message, pattern);
  return true;
};
const recordOf = (valueBytes: Buffer, topic: RawRecord['topic'] = 'clicks'): RawRecord => ({
  topic,
  partition: 0,
  offset: 0,
  timestampMs: 1,
  key: Buffer.from('u1'),
  value: valueBytes,
});

/** Replaces a topic's whole configuration. The controller answers before the broker goes by the new one. */
async function configure(
  topic: string,
  entries: Record<string, string>,
  becomes: Record<string, string> = entries,
): Promise<void> {
  const configEntries = Object.entries(entries).map(([name, value]) => ({ name, value }));
  const resources = [{ type: TOPIC, name: topic, configEntries }];
  await bench.admin.alterConfigs({ validateOnly: false, resources });
  await until(`the broker to go by ${JSON.stringify(becomes)}`, async () => {
    const live = await configOf(topic);
    return Object.entries(becomes).every(([name, value]) => live.get(name) === value);
  });
}
async function configOf(topic: string): Promise<Map<string, string>> {
  const { resources } = await bench.admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: TOPIC, name: topic }],
  });
  return new Map(resources[0]!.configEntries.map((e) => [e.configName, e.configValue]));
}

describe('topics', () => {
  it('are created as the table says, and twice is once', async () => {
    const { io, physical } = await bench.space(['exposures', 'item-sids', 'codebooks', 'dead-letters'], {
      numPartitions: 3,
    });
    await io.createTopics(['exposures', 'clicks', 'buys'], { retention: RETENTION, numPartitions: 3 });
    assert.equal(await io.numPartitions('exposures'), 3);
    assert.equal(await io.numPartitions('clicks'), 3);
    assert.equal(await io.numPartitions('codebooks'), 1);
    await io.checkTopics(
      ['exposures', 'clicks', 'buys', 'item-sids', 'codebooks', 'dead-letters'],
      RETENTION,
    );
    const live = await configOf(physical('item-sids'));
    for (const [name, value] of Object.entries(topicConfig(topicSpec('item-sids'), RETENTION)))
      assert.equal(live.get(name), value, name);
  });

  it('configured to lose data are refused, each setting with both values and the command that mends it', async () => {
    const { io, physical } = await bench.space(['clicks', 'item-sids']);
    const good = topicConfig(topicSpec('clicks'), RETENTION);
    await configure(physical('clicks'), { ...good, 'retention.ms': '1000', 'retention.bytes': '5' });
    await configure(physical('item-sids'), {
      ...topicConfig(topicSpec('item-sids'), RETENTION),
      'cleanup.policy': 'compact,delete',
    });
    await assert.rejects(io.checkTopics(['clicks', 'item-sids'], RETENTION), (error) => {
      refused(
        /clicks: retention\.ms is 1000, needed is at least 604800000\. Mend it: kafka-configs\.sh .*--entity-name test-\w+\.clicks --add-config retention\.ms=604800000/,
      )(error);
      refused(/retention\.bytes is 5, needed is -1/)(error);
      return refused(/item-sids: cleanup\.policy is compact,delete, needed is compact/)(error);
    });
    await configure(physical('clicks'), { ...good, 'retention.ms': '-1' });
    await io.checkTopics(['clicks'], RETENTION);
  });

  it('with the producers own times instead of the brokers are refused for the logs', async () => {
    const { io, physical } = await bench.space(['buys']);
    await configure(physical('buys'), {}, { 'message.timestamp.type': 'CreateTime' });
    await assert.rejects(
      io.checkTopics(['buys'], RETENTION),
      refused(/buys: message\.timestamp\.type is CreateTime, needed is LogAppendTime/),
    );
  });

  it('with unequal partition counts are refused, naming each count', async () => {
    const { io } = await bench.space(['exposures', 'clicks'], { numPartitions: 2 });
    await io.createTopics(['buys'], { retention: RETENTION, numPartitions: 3 });
    await assert.rejects(
      io.checkTopics(['exposures', 'clicks', 'buys'], RETENTION),
      refused(/clicks has 2 partitions, others of the group 'logs' have 3 \(exposures 2, clicks 2, buys 3\)/),
    );
  });

  it('that are missing are refused with the command that creates them, and reading them says so', async () => {
    const { io, namespace } = await bench.space(['clicks']);
    const reader = await io.openReader();
    await Promise.all([
      assert.rejects(
        io.checkTopics(['clicks', 'buys'], RETENTION),
        refused(/buys does not exist\. Create it: kafka-topics\.sh .*--topic test-\w+\.buys --partitions 4/),
      ),
      assert.rejects(
        reader.assign([{ topic: 'buys', partition: 0, offset: 0 }]),
        new RegExp(`does not exist: ${namespace}\\.buys`),
      ),
    ]);
  });

  it('that a broker does not know yet, as one that has just started, are asked for again', async () => {
    const { io } = await bench.space(['clicks'], { numPartitions: 2 });
    // The check asks first: requests of one connection are answered in order.
    const checked = io.checkTopics(['clicks', 'buys'], RETENTION);
    await io.createTopics(['buys'], { retention: RETENTION, numPartitions: 2 });
    await checked;
  });
});

describe('schemas', () => {
  const post = async (path: string, body: unknown, method = 'POST') => {
    const response = await fetch(`${bench.stack.registryUrl}${path}`, {
      method,
      headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
      body: JSON.stringify(body),
    });
    assert.ok(response.ok, `${path}: ${response.status} ${await response.clone().text()}`);
    return (await response.json()) as { id: number };
  };
  interface RecordSchema {
    type: 'record';
    name: string;
    fields: { name: string; type: unknown; default?: unknown }[];
  }
  const clickSchema = () => structuredClone(fullSchema('Click')) as unknown as RecordSchema;
  const register = (subject: string, schema: unknown) =>
    post(`/subjects/${subject}/versions`, { schema: JSON.stringify(schema) });

  it('are registered under each topic with the compatibility of the table, and twice is once', async () => {
    const { io, physical } = await bench.space(['clicks', 'items']);
    await io.registerSchemas(['clicks', 'training-samples']);
    const other = await bench.connect({ namespace: io.options.namespace });
    await other.registerSchemas(['clicks']);
    for (const [topic, level] of [
      ['clicks', 'FULL_TRANSITIVE'],
      ['training-samples', 'BACKWARD_TRANSITIVE'],
    ] as const) {
      const subject = `${physical(topic)}-value`;
      const config = await fetch(`${bench.stack.registryUrl}/config/${subject}`);
      assert.equal(((await config.json()) as { compatibilityLevel: string }).compatibilityLevel, level);
      const versions = await fetch(`${bench.stack.registryUrl}/subjects/${subject}/versions`);
      assert.deepEqual(await versions.json(), [1]);
    }
  });

  it('that are incompatible with what the registry holds are refused, saying how to change them', async () => {
    const { io, physical } = await bench.space(['clicks']);
    const other = clickSchema();
    other.fields.push({ name: 'newest', type: 'string' });
    other.fields = other.fields.filter((f) => f.name !== 'itemId');
    await register(`${physical('clicks')}-value`, other);
    await assert.rejects(io.registerSchemas(['clicks']), (error) => {
      assert.ok(error instanceof SchemaRefusedError, String(error));
      assert.match(error.message, /refuses schemas\/Click\.avsc for subject .*clicks-value/);
      assert.match(error.message, /must keep FULL_TRANSITIVE: give new fields a default/);
      return true;
    });
  });

  it('of a newer writer are resolved to this build', async () => {
    const { io, physical } = await bench.space(['clicks']);
    await io.registerSchemas(['clicks']);
    const evolved = clickSchema();
    evolved.fields.unshift({ name: 'device', type: 'string', default: 'unknown' });
    const { id } = await register(`${physical('clicks')}-value`, evolved);
    const bytes = await io.encode('clicks', click(1, 'u1'));
    const wire = Buffer.concat([
      Buffer.from([0, 0, 0, 0, id, 6]),
      Buffer.from('ios'),
      bytes.subarray(WIRE_HEADER_BYTES),
    ]);
    wire.writeUInt32BE(id, 1);
    const [now, before] = await Promise.all([
      io.decode('clicks', recordOf(wire)),
      io.decode('clicks', recordOf(bytes)),
    ]);
    assert.deepEqual({ ...now.value }, click(1, 'u1'));
    assert.deepEqual({ ...before.value }, click(1, 'u1'));
  });

  it('of another kind of value are a bad record, as are ids that nobody registered', async () => {
    const { io } = await bench.space(['clicks', 'items']);
    const wrong = await io.encode('items', item('x', 't'));
    const reason = async (value: Buffer) => {
      const error: unknown = await io.decode('clicks', recordOf(value)).catch((e: unknown) => e);
      assert.ok(error instanceof BadRecordError, String(error));
      return [error.reason, error.message] as const;
    };
    assert.equal((await reason(wrong))[0], 'UNDECODABLE');
    const [unknown, message] = await reason(Buffer.from([0, 0x70, 0, 0, 0, 1]));
    assert.equal(unknown, 'UNKNOWN_SCHEMA');
    assert.match(message, /schema id that the registry at http:.* knows, got 1879048192/);
    assert.equal((await reason(Buffer.from([0, 0x70, 0, 0, 0, 1])))[0], 'UNKNOWN_SCHEMA', 'and again');
  });

  it('are waited for while the registry is away, and that never makes a dead letter', async () => {
    const { io, namespace } = await bench.space(['clicks']);
    const bytes = await io.encode('clicks', click(1, 'u1'));
    let asked = 0;
    let away = true;
    const gate = createServer((request, response) => {
      asked++;
      if (away) {
        if (asked % 2) request.socket.destroy();
        else response.writeHead(503).end();
        return;
      }
      void fetch(new URL(bench.stack.registryUrl).origin + request.url).then(async (r) =>
        response.writeHead(r.status, { 'content-type': 'application/json' }).end(await r.text()),
      );
    });
    await new Promise<void>((resolve) => gate.listen(0, '127.0.0.1', resolve));
    bench.onStop(async () => void gate.close());
    const { port } = gate.address() as AddressInfo;
    const behind = await bench.connect({
      namespace,
      registryUrl: `http://127.0.0.1:${port}/apis/ccompat/v7`,
    });
    let answered = false;
    const decoded = behind.decode('clicks', recordOf(bytes)).finally(() => {
      answered = true;
    });
    await until('four tries', () => asked >= 4);
    assert.equal(answered, false);
    away = false;
    assert.deepEqual({ ...(await decoded).value }, click(1, 'u1'));
  });
});
