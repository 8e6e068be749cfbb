/**
 * Artifacts in a bucket of S3 or of a server that speaks its protocol (MinIO, Ceph, R2).
 *
 * An artifact `u` with sum `s` is the objects `u/s/<file>.<part>` and then `u.artifact.json`, which names them: it is
 * written last and only where none is yet, so that an artifact appears at once or not at all. Parts of a writer that died
 * before it stay unseen until the same artifact is written or removed.
 */
import { createHash } from 'node:crypto';
import { AwsClient } from 'aws4fetch';
import {
  ArtifactError,
  type ArtifactFile,
  type ArtifactRef,
  type ArtifactStore,
  artifactSha256,
  piecesOfFile,
  sizeOfFile,
} from './artifact-store.ts';

export interface S3Options {
  bucket: string;
  /** Path inside the bucket, without slashes at its ends; may be empty. */
  prefix: string;
  /** http://host:port; the bucket becomes the first part of the path. */
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
  /** A server that is away or overloaded is asked again for so long; default 60,000. */
  patienceMs?: number;
  /** Bytes of one object; a larger file has several. Default 64 MiB: one plain PUT, small enough to be sent again. */
  partBytes?: number;
}

interface Answer {
  status: number;
  body: Buffer;
}

/** What `<uri>.artifact.json` holds. */
interface Index {
  sha256: string;
  files: { name: string; sizeBytes: number }[];
}

const INDEX_ENDING = '.artifact.json';
const PART_BYTES = 64 * 1024 * 1024;
const PARALLEL = 4;
const REQUEST_TIMEOUT_MS = 60_000;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5_000;

export class S3ArtifactStore implements ArtifactStore {
  readonly #options: S3Options;
  readonly #client: AwsClient;
  /** For messages: s3://bucket/prefix at its server. */
  readonly #name: string;

  constructor(options: S3Options) {
    const { accessKeyId, secretAccessKey, sessionToken, region, bucket, prefix, endpoint } = options;
    this.#options = options;
    this.#name = `s3://${[bucket, prefix].filter(Boolean).join('/')} (${endpoint})`;
    this.#client = new AwsClient({
      ...{ accessKeyId, secretAccessKey, region, service: 's3', retries: 0 },
      ...(sessionToken !== undefined && { sessionToken }),
    });
  }

  async put(
    uri: string,
    files: ReadonlyMap<string, ArtifactFile>,
    sha256 = artifactSha256(files),
  ): Promise<ArtifactRef> {
    const ref = { uri, sha256 };
    for (const name of files.keys())
      if (!/^[^/\\]+$/.test(name) || name === '.' || name === '..')
        throw new ArtifactError(`Artifact file names hold no folders, got ${name}`);
    const indexKey = this.#key(uri) + INDEX_ENDING;
    if (await this.#alreadyThere(ref)) return ref;
    const parts = [...files].flatMap(([name, file]) =>
      this.#partsOf(sizeOfFile(file)).map(({ from, to }, i) => ({
        key: this.#partKey(uri, sha256, name, i),
        body: () => bytesOf(file, from, to),
      })),
    );
    await inParallel(parts, ({ key, body }) => this.#request('PUT', key, { body: body() }));
    const index: Index = {
      sha256,
      files: [...files].map(([name, file]) => ({ name, sizeBytes: sizeOfFile(file) })),
    };
    const written = await this.#request('PUT', indexKey, {
      body: Buffer.from(JSON.stringify(index)),
      headers: { 'if-none-match': '*', 'content-type': 'application/json' },
      answers: [409, 412],
    });
    // 409: another writer is at it this moment. A server that knows no conditions lets the last writer win.
    if (!(await this.#alreadyThere(ref)))
      throw new ArtifactError(
        `${uri} was not kept by ${this.#name}: its index is gone after it was written (HTTP ${written.status}). Put it again.`,
      );
    return ref;
  }

  /** @throws ArtifactError if the uri exists with other content */
  async #alreadyThere({ uri, sha256 }: ArtifactRef): Promise<boolean> {
    const existing = await this.#index(uri);
    if (existing && existing.sha256 !== sha256)
      throw new ArtifactError(`${uri} exists already with other content in ${this.#name}`);
    return existing !== null;
  }

  async get({ uri, sha256 }: ArtifactRef): Promise<Map<string, Buffer>> {
    const index = await this.#index(uri);
    if (!index)
      throw new ArtifactError(`Artifact ${uri} is not in ${this.#name}`, {
        cause: new Error(`no ${uri}${INDEX_ENDING}`),
      });
    const parts = index.files.flatMap(({ name, sizeBytes }) =>
      this.#partsOf(sizeBytes).map((_, i) => ({ name, key: this.#partKey(uri, index.sha256, name, i) })),
    );
    const read = await inParallel(parts, async ({ key }) => {
      const { status, body } = await this.#request('GET', key, { answers: [404] });
      return status === 404 ? null : body;
    });
    const files = new Map<string, Buffer>();
    for (const { name } of index.files) {
      const own = read.filter((_, i) => parts[i]!.name === name);
      // A part that is gone makes the file shorter, or gone: the sum below tells.
      if (own.every((part) => part !== null))
        files.set(name, own.length === 1 ? own[0]! : Buffer.concat(own));
    }
    const actual = artifactSha256(files);
    if (actual !== sha256)
      throw new ArtifactError(
        `Artifact ${uri} is corrupt: its sha256 is ${actual}, expected ${sha256}. Restore it from a backup or use an older one.`,
      );
    return files;
  }

  async list(folder: string): Promise<string[]> {
    const keys = await this.#keysBelow(`${this.#key(folder)}/`, '/');
    const start = this.#key('').length;
    return keys
      .filter((key) => key.endsWith(INDEX_ENDING))
      .map((key) => key.slice(start, -INDEX_ENDING.length))
      .sort();
  }

  async remove(uri: string): Promise<void> {
    // The index first: what is half removed is not there.
    await this.#request('DELETE', this.#key(uri) + INDEX_ENDING, { answers: [404] });
    const keys = await this.#keysBelow(`${this.#key(uri)}/`);
    await inParallel(keys, (key) => this.#request('DELETE', key, { answers: [404] }));
  }

  async #index(uri: string): Promise<Index | null> {
    const { status, body } = await this.#request('GET', this.#key(uri) + INDEX_ENDING, { answers: [404] });
    const text = body.toString('utf8');
    if (status === 404) {
      if (text.includes('NoSuchBucket')) throw this.#noBucket();
      return null;
    }
    try {
      const index = JSON.parse(text) as Index;
      if (typeof index.sha256 === 'string' && Array.isArray(index.files)) return index;
    } catch {}
    throw new ArtifactError(
      `Artifact ${uri} is corrupt: ${uri}${INDEX_ENDING} in ${this.#name} is no index of an artifact`,
    );
  }

  /** @param delimiter leaves out keys that hold it behind the prefix */
  async #keysBelow(prefix: string, delimiter?: string): Promise<string[]> {
    const keys: string[] = [];
    for (let token: string | undefined, first = true; first || token !== undefined; first = false) {
      const query = new URLSearchParams({
        ...{ 'list-type': '2', prefix },
        ...(delimiter !== undefined && { delimiter }),
        ...(token !== undefined && { 'continuation-token': token }),
      });
      const { status, body } = await this.#request('GET', '', { query, answers: [404] });
      if (status === 404) throw this.#noBucket();
      const xml = body.toString('utf8');
      for (const [, key] of xml.matchAll(/<Contents>.*?<Key>(.*?)<\/Key>.*?<\/Contents>/gs))
        keys.push(unescapeXml(key!));
      const next = /<NextContinuationToken>(.*?)<\/NextContinuationToken>/s.exec(xml)?.[1];
      token = next === undefined ? undefined : unescapeXml(next);
    }
    return keys;
  }

  #noBucket(): ArtifactError {
    const { bucket, endpoint } = this.#options;
    return new ArtifactError(
      `There is no bucket ${bucket} at ${endpoint}. Create it, or correct artifactsUri and s3Endpoint.`,
      { cause: new Error('NoSuchBucket') },
    );
  }

  /**
   * Asks until the server answers with less than 500 or patience ends.
   * @param options.answers statuses besides 2xx that are answers
   * @throws ArtifactError with a cause
   */
  async #request(
    method: string,
    key: string,
    options: {
      body?: Uint8Array;
      headers?: Record<string, string>;
      query?: URLSearchParams;
      answers?: number[];
    } = {},
  ): Promise<Answer> {
    const { bucket, endpoint, patienceMs = 60_000 } = this.#options;
    const { body, headers, query, answers = [] } = options;
    const path = [bucket, ...key.split('/')].map(encodeURIComponent).join('/');
    const url = `${endpoint.replace(/\/$/, '')}/${path}${query ? `?${query.toString().replaceAll('+', '%20')}` : ''}`;
    const patientUntil = performance.now() + patienceMs;
    for (let waitMs = FIRST_RETRY_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_RETRY_MS)) {
      const outcome = await this.#once(url, {
        method,
        headers: { 'x-amz-content-sha256': hexSha256(body ?? Buffer.alloc(0)), ...headers },
        ...(body && { body: body as NonNullable<RequestInit['body']> }),
      });
      const status = outcome instanceof Error ? 0 : outcome.status;
      if (!(outcome instanceof Error) && ((status >= 200 && status < 300) || answers.includes(status)))
        return outcome;
      const mayPass = status === 0 || status >= 500 || status === 408 || status === 429;
      if (!mayPass || performance.now() + waitMs > patientUntil) throw this.#refused(method, key, outcome);
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  /** The whole answer, or what kept it from coming. */
  async #once(url: string, init: RequestInit): Promise<Answer | Error> {
    try {
      const request = await this.#client.sign(url, init);
      const response = await fetch(request, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
      return { status: response.status, body: Buffer.from(await response.arrayBuffer()) };
    } catch (error) {
      return error as Error;
    }
  }

  #refused(method: string, key: string, outcome: Answer | Error): ArtifactError {
    const [told, cause] =
      outcome instanceof Error
        ? [`${outcome.message} ${(outcome.cause as Error | undefined)?.message ?? ''}`, outcome]
        : [
            `HTTP ${outcome.status} ${outcome.body.toString('utf8', 0, 300)}`,
            new Error(`HTTP ${outcome.status}`),
          ];
    const hint =
      'status' in outcome && outcome.status === 403
        ? ' Check s3AccessKeyId, s3SecretAccessKey, s3Region and the rights of the key.'
        : '';
    return new ArtifactError(`${method} ${key} in ${this.#name} failed: ${told}.${hint}`, { cause });
  }

  #key(uri: string): string {
    const parts = uri.split('/');
    if (uri !== '' && parts.some((part) => part === '' || part === '.' || part === '..'))
      throw new ArtifactError(`Artifact uri ${uri} leaves the store`);
    const { prefix } = this.#options;
    return prefix === '' ? uri : `${prefix}/${uri}`;
  }
  #partKey(uri: string, sha256: string, name: string, part: number): string {
    return `${this.#key(uri)}/${sha256}/${name}.${part}`;
  }

  /** An empty file has one empty part. */
  #partsOf(sizeBytes: number): { from: number; to: number }[] {
    const { partBytes = PART_BYTES } = this.#options;
    return Array.from({ length: Math.max(1, Math.ceil(sizeBytes / partBytes)) }, (_, i) => ({
      from: i * partBytes,
      to: Math.min(sizeBytes, (i + 1) * partBytes),
    }));
  }
}

/** A request has one body: of what comes in pieces as much is put together. */
function bytesOf(file: ArtifactFile, from: number, to: number): Uint8Array {
  const found: Uint8Array[] = [];
  let at = 0;
  for (const piece of piecesOfFile(file)) {
    const part = piece.subarray(Math.max(0, from - at), Math.max(0, to - at));
    if (part.length > 0) found.push(part);
    at += piece.length;
  }
  return found.length === 1 ? found[0]! : Buffer.concat(found);
}

/** After the first failure no more begins, and what is under way ends before it is thrown. */
async function inParallel<T, R>(list: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results = new Array<R>(list.length);
  let next = 0;
  const worker = async (): Promise<void> => {
    try {
      while (next < list.length) {
        const at = next++;
        results[at] = await work(list[at]!);
      }
    } finally {
      next = list.length;
    }
  };
  const workers = Array.from({ length: Math.min(PARALLEL, list.length) }, worker);
  await Promise.allSettled(workers);
  await Promise.all(workers);
  return results;
}

const hexSha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };
const unescapeXml = (text: string): string =>
  text.replace(/&(#x?[0-9a-fA-F]+|[a-z]+);/g, (whole, name: string) =>
    name.startsWith('#')
      ? String.fromCodePoint(Number(name.startsWith('#x') ? `0${name.slice(1)}` : name.slice(1)))
      : (ENTITIES[name] ?? whole),
  );
