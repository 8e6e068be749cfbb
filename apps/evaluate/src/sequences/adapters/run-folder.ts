/** The folder of one run: checkpoint of the last epoch, weights of the best one, progress, result. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import type { ModelState } from '@onemall/learning/sequences';

export interface Checkpoint<P> {
  state: ModelState;
  progress: P;
}

export class RunFolder {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  /** Values that a run leaves for others and for later, as JSON. */
  read<T>(name: string): T | undefined {
    const file = path.join(this.folder, `${name}.json`);
    return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as T) : undefined;
  }
  write(name: string, value: unknown): void {
    this.#replace(`${name}.json`, [Buffer.from(`${JSON.stringify(value, null, 2)}\n`)]);
  }

  readArray(name: string): Float32Array | undefined {
    const file = path.join(this.folder, `${name}.f32`);
    return existsSync(file) ? new Float32Array(new Uint8Array(readFileSync(file)).buffer) : undefined;
  }
  writeArray(name: string, values: Float32Array): void {
    this.#replace(`${name}.f32`, [bytesOf(values)]);
  }

  /** One file, so that weights and progress cannot come from two epochs: header length, header, tensors, sha256. */
  writeCheckpoint<P>(name: string, { state, progress }: Checkpoint<P>): void {
    const tensors = [...state.tensors].map(([key, values]) => [key, values.length] as const);
    const header = Buffer.from(JSON.stringify({ step: state.step, progress, tensors }));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(header.length);
    const parts = [length, header, ...[...state.tensors.values()].map(bytesOf)];
    const hash = createHash('sha256');
    for (const part of parts) hash.update(part);
    this.#replace(`${name}.checkpoint`, [...parts, hash.digest()]);
  }

  /** @throws Error when the file is damaged */
  readCheckpoint<P>(name: string): Checkpoint<P> | undefined {
    const file = path.join(this.folder, `${name}.checkpoint`);
    if (!existsSync(file)) return undefined;
    const all = readFileSync(file);
    const body = all.subarray(0, Math.max(0, all.length - 32));
    if (!createHash('sha256').update(body).digest().equals(all.subarray(body.length)))
      throw new Error(`${file} is damaged: its checksum differs. Remove it to train this run anew.`);
    const begin = 4 + body.readUInt32LE(0);
    const { step, progress, tensors } = JSON.parse(body.toString('utf8', 4, begin)) as {
      step: number;
      progress: P;
      tensors: [string, number][];
    };
    let at = begin;
    const read = tensors.map(([key, count]): [string, Float32Array] => {
      const values = new Float32Array(count);
      Buffer.from(values.buffer).set(body.subarray(at, at + count * 4));
      at += count * 4;
      return [key, values];
    });
    return { state: { tensors: new Map(read), step }, progress };
  }

  /** Written beside, made durable, then renamed: a stop leaves the old file or the new one. */
  #replace(name: string, parts: readonly Uint8Array[]): void {
    const file = path.join(this.folder, name);
    const beside = `${file}.new`;
    const handle = openSync(beside, 'w');
    for (const part of parts) for (let at = 0; at < part.length; ) at += writeSync(handle, part, at);
    fsyncSync(handle);
    closeSync(handle);
    renameSync(beside, file);
  }
}

const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
