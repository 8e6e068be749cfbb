/** What each answer of a registry means for the record that names the schema. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { BadRecordError, fullSchema } from '@onemall/contracts';
import type { Clock } from '@onemall/service-kit';
import { LogWriter } from '../src/log-writer.ts';
import { KafkaIoError } from '../src/ports.ts';
import { Registry } from '../src/registry.ts';
import { TopicNames } from '../src/topic-names.ts';

interface Answer {
  status: number;
  body: string;
  type?: string;
}
const JSON_TYPE = 'application/vnd.schemaregistry.v1+json';

/** A registry that gives these answers in turn and the last one from then on; 0 is none at all. */
async function answering(t: TestContext, ...answers: [Answer, ...Answer[]]) {
  let asked = 0;
  const authorizations: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    authorizations.push(request.headers.authorization);
    const { status, body, type = JSON_TYPE } = answers[Math.min(asked++, answers.length - 1)]!;
    if (status > 0) response.writeHead(status, { 'content-type': type }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const clock: Clock = { nowMs: () => 0, sleep: async () => {} };
  const log = new LogWriter(
    () => {},
    () => 0,
  );
  const registryWith = (address: string, credentials?: { username: string; password: string }) =>
    new Registry({
      url: address,
      credentials,
      clientId: 'test',
      names: new TopicNames('ns'),
      clock,
      log,
      timeoutMs: 50,
    });
  const registry = registryWith(url);
  t.after(() => {
    registry.close();
    server.closeAllConnections();
    server.close();
  });
  return { registry, registryWith, url, asked: () => asked, authorizations };
}
const schema = { status: 200, body: JSON.stringify({ schema: JSON.stringify(fullSchema('Click')) }) };
const notFound = { status: 404, body: JSON.stringify({ error_code: 40403, message: 'Schema not found' }) };

test('a schema is found, whatever its content type says', async (t) => {
  for (const type of [JSON_TYPE, 'application/json', 'text/plain']) {
    const { registry } = await answering(t, { ...schema, type });
    const found = (await registry.schemaOf(7)) as { name: string };
    assert.match(found.name, /Click$/, type);
  }
});

test('name and password reach the registry from the settings or from its address', async (t) => {
  const { registryWith, url, authorizations } = await answering(t, schema);
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
  await registryWith(url, { username: 'me', password: 'p:1' }).schemaOf(7);
  await registryWith(url.replace('//', '//you:p%2F2@')).schemaOf(7);
  await registryWith(url).schemaOf(7);
  assert.deepEqual(authorizations, [basic('me:p:1'), basic('you:p/2'), undefined]);
});

test('a password in the address stays out of messages', async (t) => {
  const { registryWith, url } = await answering(t, { status: 403, body: '{}' });
  await assert.rejects(registryWith(url.replace('//', '//you:hunter2@')).schemaOf(7), (error: Error) => {
    assert.match(error.message, /status 403/);
    assert.doesNotMatch(error.message, /hunter2/);
    return true;
  });
});

test('only "not found" makes the record bad, for a moment without asking again', async (t) => {
  const { registry, asked } = await answering(t, notFound);
  for (let i = 0; i < 2; i++)
    await assert.rejects(registry.schemaOf(7), (error) => {
      assert.ok(error instanceof BadRecordError);
      assert.equal(error.reason, 'UNKNOWN_SCHEMA');
      return true;
    });
  assert.equal(asked(), 1);
});

test('a registry that refuses is at fault, not the record, and is asked again', async (t) => {
  for (const status of [400, 401, 403, 405, 418]) {
    const refused = { status, body: JSON.stringify({ message: 'Timeout of your token' }) };
    const { registry, url } = await answering(
      t,
      status === 400 ? { ...refused, body: '{}' } : refused,
      schema,
    );
    await assert.rejects(registry.schemaOf(7), (error) => {
      assert.ok(error instanceof KafkaIoError, String(error));
      assert.ok(error.message.includes(`status ${status} from ${url}/schemas/ids/7`), error.message);
      return true;
    });
    assert.ok(await registry.schemaOf(7));
  }
});

test('a page in place of a schema is the fault of what answered', async (t) => {
  const pages = ['<html>Please sign in</html>', '', '[]', 'null', '{"schema":null}', '"x"'];
  for (const body of pages)
    for (const type of ['text/html', JSON_TYPE]) {
      const { registry, url } = await answering(t, { status: 200, body, type });
      await assert.rejects(registry.schemaOf(7), (error) => {
        assert.ok(error instanceof KafkaIoError, `${body}: ${error}`);
        assert.match(error.message, /status 200 with a body that is no schema/);
        assert.ok(error.message.includes(url));
        return true;
      });
    }
});

test('a schema that is no Avro makes its records undecodable', async (t) => {
  const { registry } = await answering(t, { status: 200, body: JSON.stringify({ schema: 'no avro' }) });
  await assert.rejects(registry.schemaOf(7), (error) => {
    assert.ok(error instanceof BadRecordError);
    assert.equal(error.reason, 'UNDECODABLE');
    return true;
  });
});

test('a request that is taken and never answered is asked again', async (t) => {
  const silence = { status: 0, body: '' };
  const reading = await answering(t, silence, silence, schema);
  assert.match(((await reading.registry.schemaOf(7)) as { name: string }).name, /Click$/);
  assert.equal(reading.asked(), 3);
  const compatibility = { status: 200, body: '{"compatibilityLevel":"FULL_TRANSITIVE"}' };
  const registered = { status: 200, body: '{"id":7}' };
  const writing = await answering(
    t,
    silence,
    compatibility,
    compatibility,
    silence,
    compatibility,
    registered,
  );
  assert.equal(await writing.registry.register('clicks'), 7);
});

test('being away is waited for', async (t) => {
  const away = [500, 503, 429, 408].map((status) => ({ status, body: 'later', type: 'text/plain' }));
  const { registry, asked } = await answering(t, away[0]!, ...away.slice(1), schema);
  assert.ok(await registry.schemaOf(7));
  assert.equal(asked(), 5);
});
