/** A real S3 server for tests: s3rver in this process, or the one that ONEMALL_TEST_S3 names. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { AwsClient } from 'aws4fetch';
import S3rver from 's3rver';
import type { S3Options } from '../src/index.ts';

export interface BucketServer {
  options: Omit<S3Options, 'prefix'>;
  /** Behind the back of a store. */
  keys(prefix: string): Promise<string[]>;
  write(key: string, text: string): Promise<void>;
  remove(key: string): Promise<void>;
  stop(): Promise<void>;
}

/** ONEMALL_TEST_S3 is `http://accessKeyId:secretAccessKey@host:port`: a server to test against instead, such as MinIO. */
export async function startBucketServer(): Promise<BucketServer> {
  const named = process.env.ONEMALL_TEST_S3;
  const own = named ? null : await startS3rver();
  const at = new URL(named ?? own!.url);
  const bucket = `test-${randomBytes(4).toString('hex')}`;
  const options = {
    ...{ bucket, endpoint: at.origin, region: 'us-east-1' },
    ...{ accessKeyId: at.username, secretAccessKey: at.password },
  };
  const client = new AwsClient({ ...options, service: 's3', retries: 0 });
  const ask = async (method: string, rest: string, body?: string): Promise<string> => {
    const response = await client.fetch(`${at.origin}/${bucket}${rest}`, {
      method,
      ...(body !== undefined && { body }),
    });
    if (!response.ok) throw new Error(`${method} ${rest}: HTTP ${response.status} ${await response.text()}`);
    return response.text();
  };
  await ask('PUT', '');
  return {
    options,
    keys: async (prefix) => {
      const xml = await ask('GET', `?list-type=2&prefix=${encodeURIComponent(prefix)}`);
      return [...xml.matchAll(/<Key>(.*?)<\/Key>/g)].map(([, key]) => key!);
    },
    write: async (key, text) => void (await ask('PUT', `/${key}`, text)),
    remove: async (key) => void (await ask('DELETE', `/${key}`)),
    stop: async () => own?.stop(),
  };
}

async function startS3rver(): Promise<{ url: string; stop(): Promise<void> }> {
  const directory = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
  const server = new S3rver({ address: '127.0.0.1', port: 0, silent: true, directory });
  const { port } = (await server.run()) as AddressInfo;
  return {
    url: `http://S3RVER:S3RVER@127.0.0.1:${port}`,
    stop: async () => {
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
