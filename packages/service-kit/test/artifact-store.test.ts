/** Both stores keep the same promises; the bucket is served by a real server (s3rver), or by the one that ONEMALL_TEST_S3 names. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import {
  type AddressInfo,
  connect,
  createServer as createTcpServer,
  type Socket,
  type Server as TcpServer,
} from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import {
  ArtifactError,
  type ArtifactStore,
  artifactSha256,
  ConfigError,
  FolderArtifactStore,
  loadConfig,
  openArtifactStore,
  S3ArtifactStore,
} from '../src/index.ts';
import { type BucketServer, startBucketServer } from './bucket-server.ts';

const files = (content: Record<string, string>): Map<string, Uint8Array> =>
  new Map(Object.entries(content).map(([name, text]) => [name, Buffer.from(text)]));

interface Opened {
  store: ArtifactStore;
  /** Harms the bytes of a stored artifact behind the store's back. */
  harm(uri: string, how: 'byte' | 'missing'): Promise<void>;
  /** Leaves what a writer leaves that died half way. */
  half(uri: string): Promise<void>;
  /** Part of the messages: which store it was. */
  name: string;
}

function keepsItsPromises(open: () => Promise<Opened>): void {
  let opened: Opened;
  let store: ArtifactStore;
  before(async () => {
    opened = await open();
    store = opened.store;
  });

  test('what is put is got back, byte for byte', async () => {
    const ref = await store.put(
      'policies/ranker/7',
      files({ 'model.onnx': 'abc', 'manifest.json': '{}', empty: '' }),
    );
    const back = await store.get(ref);
    assert.deepEqual([...back].map(([name, bytes]) => [name, bytes.toString()]).sort(), [
      ['empty', ''],
      ['manifest.json', '{}'],
      ['model.onnx', 'abc'],
    ]);
  });

  test('the same content twice is one artifact; other content under its name is refused', async () => {
    const first = await store.put('a/1', files({ x: '1' }));
    assert.deepEqual(await store.put('a/1', files({ x: '1' })), first);
    await assert.rejects(
      store.put('a/1', files({ x: '2' })),
      (error: unknown) =>
        error instanceof ArtifactError && /exists already with other content/.test(error.message),
    );
    assert.equal((await store.get(first)).get('x')!.toString(), '1');
    assert.deepEqual(await store.list('a'), ['a/1']);
  });

  test('two writers of one artifact at the same moment leave one whole artifact', async () => {
    const texts = ['1', '1', '2'];
    await Promise.allSettled(texts.map((text) => store.put('both/1', files({ x: text, y: text }))));
    const whole = await Promise.allSettled(
      ['1', '2'].map((text) =>
        store.get({ uri: 'both/1', sha256: artifactSha256(files({ x: text, y: text })) }),
      ),
    );
    const read = whole.filter((r) => r.status === 'fulfilled').map((r) => r.value);
    assert.equal(read.length, 1);
    assert.equal(read[0]!.get('x')!.toString(), read[0]!.get('y')!.toString());
    assert.deepEqual(await store.list('both'), ['both/1']);
  });

  test('a changed byte and a missing file are corruption, told with both sums', async () => {
    for (const how of ['byte', 'missing'] as const) {
      const uri = `c/${how}`;
      const ref = await store.put(uri, files({ x: 'abc', y: 'd' }));
      await opened.harm(uri, how);
      await assert.rejects(
        store.get(ref),
        (error: unknown) =>
          error instanceof ArtifactError &&
          error.cause === undefined &&
          error.message.includes(`${uri} is corrupt`) &&
          error.message.includes(ref.sha256),
      );
    }
  });

  test('a missing artifact is named with the store it is missing from', async () => {
    await assert.rejects(
      store.get({ uri: 'checkpoints/none', sha256: '0' }),
      (error: unknown) =>
        error instanceof ArtifactError &&
        error.cause !== undefined &&
        error.message.includes('checkpoints/none is not in ') &&
        error.message.includes(opened.name),
    );
  });

  test('a writer that died half way leaves nothing that list or get can see', async () => {
    await store.put('p/1', files({ x: '1' }));
    await opened.half('p/2');
    assert.deepEqual(await store.list('p'), ['p/1']);
    await store.put('p/2', files({ x: 'whole' }));
    assert.deepEqual(await store.list('p'), ['p/1', 'p/2']);
  });

  test('list knows folders by their whole name; what is removed is gone', async () => {
    const refs = [];
    for (const uri of ['l/10', 'l/9', 'l/deep/1', 'long/1'])
      refs.push(await store.put(uri, files({ x: uri })));
    assert.deepEqual(
      (await store.list('l')).filter((uri) => uri !== 'l/deep'),
      ['l/10', 'l/9'],
    );
    await store.remove('l/9');
    assert.deepEqual(
      (await store.list('l')).filter((uri) => uri !== 'l/deep'),
      ['l/10'],
    );
    await assert.rejects(store.get(refs[1]!), ArtifactError);
    assert.equal((await store.get(refs[0]!)).get('x')!.toString(), 'l/10');
  });

  test('list of a folder that is not there is empty, and remove of nothing is no error', async () => {
    assert.deepEqual(await store.list('nothing'), []);
    await store.remove('nothing/1');
  });

  test('neither uris nor file names leave the store', async () => {
    await assert.rejects(store.put('../outside', files({ x: '1' })), /leaves the store/);
    await assert.rejects(store.put('a/2', files({ '../x': '1' })), /hold no folders/);
    await assert.rejects(store.remove('../../etc'), /leaves the store/);
  });
}

describe('FolderArtifactStore', () => {
  const root = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
  after(() => rmSync(root, { recursive: true, force: true }));
  keepsItsPromises(async () => ({
    store: new FolderArtifactStore(root),
    name: root,
    harm: async (uri, how) => {
      const file = path.join(root, uri, 'x');
      if (how === 'byte') writeFileSync(file, 'ab!');
      else rmSync(file);
    },
    half: async (uri) => {
      mkdirSync(path.join(root, `${uri}.00000000-dead.tmp`), { recursive: true });
      writeFileSync(path.join(root, `${uri}.00000000-dead.tmp`, 'x'), 'half');
    },
  }));

  test('a file that was added is corruption too; nothing temporary is left', async () => {
    const store = new FolderArtifactStore(root);
    const ref = await store.put('d/added', files({ x: 'abc' }));
    writeFileSync(path.join(root, 'd', 'added', 'z'), '');
    await assert.rejects(store.get(ref), /d\/added is corrupt/);
    assert.deepEqual(readdirSync(path.join(root, 'd')), ['added']);
  });

  test('what a killed writer left goes with a later artifact of its folder, what is being written stays', async () => {
    const [dead, busy] = ['1.dead.tmp', '2.busy.tmp'].map((name) => path.join(root, 'k', name));
    for (const folder of [dead!, busy!]) {
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, 'x'), 'half');
    }
    const longAgoS = Date.now() / 1000 - 4_000;
    utimesSync(dead!, longAgoS, longAgoS);
    await new FolderArtifactStore(root).put('k/3', files({ x: 'abc' }));
    assert.deepEqual(readdirSync(path.join(root, 'k')).sort(), ['2.busy.tmp', '3']);
  });
});

describe('S3ArtifactStore', () => {
  let server: BucketServer;
  before(async () => {
    server = await startBucketServer();
  });
  after(() => server.stop());
  const storeAt = (prefix: string, more: Partial<ConstructorParameters<typeof S3ArtifactStore>[0]> = {}) =>
    new S3ArtifactStore({ ...server.options, prefix, patienceMs: 20_000, ...more });

  keepsItsPromises(async () => {
    const store = storeAt('some/place');
    return {
      store,
      name: `s3://${server.options.bucket}/some/place`,
      harm: async (uri, how) => {
        const key = (await server.keys(`some/place/${uri}/`)).find((k) => k.endsWith('/x.0'))!;
        if (how === 'byte') await server.write(key, 'ab!');
        else await server.remove(key);
      },
      half: (uri) => server.write(`some/place/${uri}/${'0'.repeat(64)}/x.0`, 'half'),
    };
  });

  test('a listing in several answers is read to its end', async (t) => {
    // s3rver cannot continue a listing on this version of OpenSSL; the answers here are those of MinIO, shortened.
    const pages: Record<string, string> = {
      '': `<IsTruncated>true</IsTruncated><NextContinuationToken>a+/=&amp;b</NextContinuationToken>
        <Contents><Key>at/many/1&amp;.artifact.json</Key><Size>3</Size></Contents>
        <Contents><Key>at/many/stray</Key></Contents><CommonPrefixes><Prefix>at/many/1/</Prefix></CommonPrefixes>`,
      'a+/=&b': `<IsTruncated>false</IsTruncated><Contents><Key>at/many/2.artifact.json</Key></Contents>`,
    };
    const asked: URLSearchParams[] = [];
    const listing = createServer((request, response) => {
      const { searchParams } = new URL(request.url!, 'http://host');
      asked.push(searchParams);
      response.end(
        `<ListBucketResult>${pages[searchParams.get('continuation-token') ?? '']}</ListBucketResult>`,
      );
    });
    const port = await listen(t, listing);
    const store = storeAt('at', { endpoint: `http://127.0.0.1:${port}` });
    assert.deepEqual(await store.list('many'), ['many/1&', 'many/2']);
    assert.deepEqual(
      asked.map((q) => [q.get('prefix'), q.get('delimiter')]),
      [
        ['at/many/', '/'],
        ['at/many/', '/'],
      ],
    );
  });

  test('without a prefix the bucket itself is the root', async () => {
    const store = storeAt('');
    await store.put('root/1', files({ x: '1' }));
    assert.deepEqual(await store.list('root'), ['root/1']);
  });

  test('a file of several parts comes back whole, whatever pieces it was in', async () => {
    const store = storeAt('parts', { partBytes: 1_000 });
    const bytes = Buffer.from(Array.from({ length: 3_005 }, (_, i) => (i * 7) % 251));
    const cuts = [0, 0, 700, 1_000, 1_001, 3_004, 3_005];
    const pieces = cuts.slice(1).map((to, i) => bytes.subarray(cuts[i], to));
    for (const file of [bytes, pieces]) {
      const ref = await store.put('big/1', new Map([['tensors.bin', file]]));
      assert.equal((await server.keys('parts/big/1/')).length, 4);
      assert.equal(Buffer.compare((await store.get(ref)).get('tensors.bin')!, bytes), 0);
      await store.remove('big/1');
    }
    assert.deepEqual(await server.keys('parts/'), []);
  });

  test('where a part is refused no more are begun, and what is under way ends first', async (t) => {
    const parts: (() => void)[] = [];
    const refusing = createServer((request, response) => {
      if (request.method === 'GET') return void response.writeHead(404).end();
      const status = parts.length === 0 ? 400 : 200;
      parts.push(() => response.writeHead(status).end());
      request.resume();
      if (parts.length === 4) for (const answer of parts) answer();
      if (parts.length > 4) response.end();
    });
    const port = await listen(t, refusing);
    const store = storeAt('at', { endpoint: `http://127.0.0.1:${port}`, partBytes: 10 });
    await assert.rejects(store.put('big/1', new Map([['x', Buffer.alloc(500)]])), /failed: HTTP 400/);
    await assert.rejects(store.get({ uri: 'big/1', sha256: '' }), /is not in/);
    assert.equal(parts.length, 4);
  });

  test('a bucket that is not there and a wrong key are told as such', async () => {
    const ref = { uri: 'a/1', sha256: '0' };
    for (const ask of [
      (s: ArtifactStore) => s.get(ref),
      (s: ArtifactStore) => s.list('a'),
      (s: ArtifactStore) => s.put('a/1', files({ x: '1' })),
    ])
      await assert.rejects(
        ask(storeAt('', { bucket: 'no-such-bucket' })),
        /There is no bucket no-such-bucket at/,
      );
    await assert.rejects(
      storeAt('', { accessKeyId: 'wrong' }).put('a/1', files({ x: '1' })),
      /failed: HTTP 403 .*Check s3AccessKeyId, s3SecretAccessKey/s,
    );
  });

  test('a server that is away or overloaded is asked again; one that stays away is an error with its cause', async (t) => {
    const { hostname, port: target } = new URL(server.options.endpoint);
    let failures = 4;
    // The first connections break, or get the answer of a server that is too busy.
    const flaky = createTcpServer((client) => {
      client.on('error', () => {});
      if (failures-- > 0) {
        if (failures % 2 === 0) return client.destroy();
        client.once('data', () =>
          client.end('HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n'),
        );
        return;
      }
      const through = connect(Number(target), hostname);
      through.on('error', () => client.destroy());
      client.on('close', () => through.destroy());
      client.pipe(through).pipe(client);
    });
    const endpoint = `http://127.0.0.1:${await listen(t, flaky)}`;
    assert.deepEqual(await storeAt('', { endpoint }).list('nothing'), []);
    assert.ok(failures < 0);
    const nobody = createTcpServer();
    const free = await listen(t, nobody);
    await new Promise((resolve) => nobody.close(resolve));
    await assert.rejects(
      storeAt('', { endpoint: `http://127.0.0.1:${free}`, patienceMs: 300 }).list('a'),
      (error: unknown) =>
        error instanceof ArtifactError && error.cause !== undefined && /ECONNREFUSED/.test(error.message),
    );
  });
});

/** Its port; it ends with the test, connections too. */
async function listen(t: TestContext, server: TcpServer): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test('artifactsUri says which store it is; what an s3 address lacks is an error of the configuration', () => {
  const open = (env: Record<string, string>) => openArtifactStore(loadConfig({}, env));
  assert.ok(open({ ONEMALL_ARTIFACTS_URI: '/tmp/x' }) instanceof FolderArtifactStore);
  const keys = { ONEMALL_S3_ACCESS_KEY_ID: 'a', ONEMALL_S3_SECRET_ACCESS_KEY: 'b' };
  assert.ok(open({ ONEMALL_ARTIFACTS_URI: 's3://bucket/some/prefix/', ...keys }) instanceof S3ArtifactStore);
  const refused: [Record<string, string>, RegExp][] = [
    [{ ONEMALL_ARTIFACTS_URI: 's3://bucket/prefix' }, /set s3AccessKeyId and s3SecretAccessKey/],
    [{ ONEMALL_ARTIFACTS_URI: 's3://', ...keys }, /expected a folder or s3:\/\/bucket\/prefix/],
    [{ ONEMALL_ARTIFACTS_URI: 'gs://bucket/x', ...keys }, /expected a folder or s3:\/\/bucket\/prefix/],
  ];
  for (const [env, message] of refused)
    assert.throws(
      () => open(env),
      (error: unknown) => error instanceof ConfigError && message.test(error.message),
    );
});

test('the sum does not depend on the order of the files, and on nothing but names and bytes', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.stringMatching(/^[a-z]{1,6}$/), fc.uint8Array({ maxLength: 20 })),
      (content) => {
        const entries = Object.entries(content);
        assert.equal(artifactSha256(new Map(entries)), artifactSha256(new Map([...entries].reverse())));
      },
    ),
    { seed: 1 },
  );
  // Names and bytes are kept apart: moving a byte from one to the other changes the sum.
  assert.notEqual(artifactSha256(files({ ab: 'c' })), artifactSha256(files({ a: 'bc' })));
});
