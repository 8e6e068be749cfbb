/** A broker that asks for TLS and a password: control plane and data plane alike, and what a wrong setting says. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { checkPrerequisites, freePorts, Guardian, type LocalStack, startLocalStack } from '@onemall/stack';
import { connectKafka, type KafkaAccess, type KafkaIoOptions } from '../src/index.ts';
import { clickRecord, RETENTION, readToEnd } from './harness.ts';

const PASSWORD = 'correct horse';
const guardian = new Guardian();
let stack: LocalStack;
let secured: string;
let ca: string;

before(async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-secured-'));
  guardian.removeFolder(folder);
  ca = selfSigned(folder);
  const [plainPort, controllerPort, securedPort] = (await freePorts(3)) as [number, number, number];
  secured = `127.0.0.1:${securedPort}`;
  const login = 'org.apache.kafka.common.security.plain.PlainLoginModule';
  stack = await startLocalStack({
    dataDir: folder,
    guardian,
    redis: false,
    ports: { kafka: plainPort, controller: controllerPort },
    kafkaProperties: `
listeners=PLAINTEXT://127.0.0.1:${plainPort},CONTROLLER://127.0.0.1:${controllerPort},SECURED://${secured}
advertised.listeners=PLAINTEXT://127.0.0.1:${plainPort},SECURED://${secured}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
listener.name.secured.sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=${login} required user_onemall="${PASSWORD}";
listener.name.secured.ssl.keystore.type=PKCS12
listener.name.secured.ssl.keystore.location=${path.join(folder, 'broker.p12')}
listener.name.secured.ssl.keystore.password=changeit
`,
  });
});
after(async () => {
  await stack?.stop();
  guardian.close();
});

/** A key pair for 127.0.0.1 in broker.p12. @returns its certificate as PEM */
function selfSigned(folder: string): string {
  const { java } = checkPrerequisites(true);
  const keytool = path.join(path.dirname(java!.executable), 'keytool');
  const store = ['-keystore', path.join(folder, 'broker.p12'), '-storepass', 'changeit', '-alias', 'broker'];
  const key = ['-keyalg', 'EC', '-dname', 'CN=127.0.0.1', '-ext', 'SAN=ip:127.0.0.1', '-validity', '30'];
  execFileSync(keytool, ['-genkeypair', ...store, '-storetype', 'PKCS12', ...key], { stdio: 'pipe' });
  const certificate = path.join(folder, 'ca.pem');
  execFileSync(keytool, ['-exportcert', '-rfc', ...store, '-file', certificate], { stdio: 'pipe' });
  return readFileSync(certificate, 'utf8');
}

const options = (access: KafkaAccess): KafkaIoOptions => ({
  brokers: secured,
  registryUrl: stack.registryUrl,
  namespace: 'secured',
  clientId: 'conformance',
  access,
  onLog: () => {},
});
const sasl = (password: string) => ({ mechanism: 'plain', username: 'onemall', password }) as const;

describe('a secured broker', () => {
  it('is written to in a transaction and read from', async () => {
    const io = await connectKafka(options({ tls: { ca }, sasl: sasl(PASSWORD) }));
    await io.createTopics(['clicks'], { retention: RETENTION, numPartitions: 2 });
    await io.registerSchemas(['clicks']);
    const writer = await io.openTransactionalWriter('secured-writer');
    await writer.init();
    const records = [1, 2, 3].map((n) => clickRecord(n));
    await writer.commit({ records });
    const found = await readToEnd(await io.openReader(), io, 'clicks');
    assert.equal(found.length, records.length);
    await io.close();
  });

  it('refuses a wrong password with an error, not a wait', async () => {
    await assert.rejects(connectKafka(options({ tls: { ca }, sasl: sasl('wrong') })), /[Aa]uthentication/);
  });

  it('is not trusted without its authority', async () => {
    await assert.rejects(connectKafka(options({ tls: {}, sasl: sasl(PASSWORD) })), /self-signed certificate/);
  });
});
