/** What a run has finished so far: artifacts in a folder and one file that names them; a run that is stopped goes on from it. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type ArtifactRef, FolderArtifactStore } from '@onemall/service-kit';

/** JSON values by name; artifacts are kept as references. */
interface RunRecord {
  values: Record<string, unknown>;
  artifacts: Record<string, ArtifactRef>;
}

export class RunStore {
  readonly folder: string;
  readonly #artifacts: FolderArtifactStore;
  readonly #record: RunRecord;

  /** @throws Error when the folder belongs to a run of another identity */
  constructor(folder: string, identity: string) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
    this.#artifacts = new FolderArtifactStore(path.join(folder, 'artifacts'));
    const file = this.#file();
    this.#record = existsSync(file)
      ? (JSON.parse(readFileSync(file, 'utf8')) as RunRecord)
      : { values: { identity }, artifacts: {} };
    const { identity: before } = this.#record.values;
    if (before !== identity)
      throw new Error(`${folder} holds a run of ${before}, this one is of ${identity}: name another folder`);
    this.#save();
  }

  value<T>(name: string): T | undefined {
    return this.#record.values[name] as T | undefined;
  }
  setValue(name: string, value: unknown): void {
    this.#record.values[name] = value;
    this.#save();
  }

  /** The files under a name, or undefined. */
  async files(name: string): Promise<Map<string, Buffer> | undefined> {
    const ref = this.#record.artifacts[name];
    return ref && this.#artifacts.get(ref);
  }

  /** Replaces the files and the value of one name together; the old files go when the new ones are named. */
  async setFiles(name: string, files: ReadonlyMap<string, Uint8Array>, value?: unknown): Promise<void> {
    const before = this.#record.artifacts[name];
    const count = before ? Number(before.uri.slice(before.uri.lastIndexOf('-') + 1)) + 1 : 0;
    const uri = `${name.replaceAll('/', '_')}-${count}`;
    await this.#artifacts.remove(uri);
    this.#record.artifacts[name] = await this.#artifacts.put(uri, files);
    if (value !== undefined) this.#record.values[name] = value;
    this.#save();
    if (before) await this.#artifacts.remove(before.uri);
  }

  /** Adds a line to `<name>.jsonl`. */
  append(name: string, value: unknown): void {
    appendFileSync(path.join(this.folder, `${name}.jsonl`), `${JSON.stringify(value)}\n`);
  }
  /** The lines of `<name>.jsonl`; a last one that a stop cut off is left out. */
  lines<T>(name: string): T[] {
    const file = path.join(this.folder, `${name}.jsonl`);
    if (!existsSync(file)) return [];
    const text = readFileSync(file, 'utf8');
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (whole.length < text.length) writeFileSync(file, whole);
    return whole
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as T);
  }

  #file(): string {
    return path.join(this.folder, 'run.json');
  }
  #save(): void {
    writeFileSync(`${this.#file()}.tmp`, `${JSON.stringify(this.#record, null, 1)}\n`);
    renameSync(`${this.#file()}.tmp`, this.#file());
  }
}

/** Float tensors as files, for a checkpoint. */
export const tensorFiles = (tensors: ReadonlyMap<string, Float32Array>): Map<string, Uint8Array> =>
  new Map(
    [...tensors].map(([name, t]) => [
      encodeURIComponent(name),
      new Uint8Array(t.buffer, t.byteOffset, t.byteLength),
    ]),
  );
export const tensorsOf = (files: ReadonlyMap<string, Buffer>): Map<string, Float32Array> =>
  new Map(
    [...files].map(([name, bytes]) => [
      decodeURIComponent(name),
      new Float32Array(new Uint8Array(bytes).buffer),
    ]),
  );
