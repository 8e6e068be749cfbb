/**
 * Immutable artifacts (codebooks, checkpoints, policies, snapshots): folders of files that appear at once or not at all.
 * The sha256 of an artifact covers the names and bytes of all its files.
 */
import { createHash, randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { setImmediate as otherWork } from 'node:timers/promises';

/** What is hashed at once: about three milliseconds. */
const SLICE_BYTES = 2 << 20;
const LEFT_BEHIND_MS = 3_600_000;
/** What is written with one call. */
const PIECES_PER_WRITE = 64;

export interface ArtifactRef {
  /** Path relative to the store's root, such as policies/retriever/000120. */
  uri: string;
  sha256: string;
}

export class ArtifactError extends Error {
  override name = 'ArtifactError';
}

/** Bytes of a file, in one piece or in several that follow one another. */
export type ArtifactFile = Uint8Array | readonly Uint8Array[];

export const piecesOfFile = (file: ArtifactFile): readonly Uint8Array[] =>
  file instanceof Uint8Array ? [file] : file;
/** In bytes. */
export const sizeOfFile = (file: ArtifactFile): number =>
  piecesOfFile(file).reduce((sum, piece) => sum + piece.length, 0);

export interface ArtifactStore {
  /**
   * Writes all files, syncs them and makes them visible in one step.
   * @param sha256 where the caller has computed it already
   * @throws ArtifactError if the uri exists with other bytes. */
  put(uri: string, files: ReadonlyMap<string, ArtifactFile>, sha256?: string): Promise<ArtifactRef>;
  /** @throws ArtifactError if it is missing or its bytes do not have the given sha256. */
  get(ref: ArtifactRef): Promise<Map<string, Buffer>>;
  /** Artifact uris directly below a folder, sorted by name. */
  list(folder: string): Promise<string[]>;
  remove(uri: string): Promise<void>;
}

/** sha256 over sorted names, sizes and bytes. */
export function artifactSha256(files: ReadonlyMap<string, ArtifactFile>): string {
  const hash = createHash('sha256');
  for (const piece of hashed(files)) hash.update(piece);
  return hash.digest('hex');
}

/** As `artifactSha256`; others get their turn every few milliseconds. The bytes may not change until it resolves. */
export async function artifactSha256InSlices(files: ReadonlyMap<string, ArtifactFile>): Promise<string> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  for (const whole of hashed(files))
    for (let at = 0; at < whole.length; at += SLICE_BYTES) {
      const piece = whole.length > SLICE_BYTES ? whole.subarray(at, at + SLICE_BYTES) : whole;
      hash.update(piece);
      sizeBytes += piece.length;
      if (sizeBytes < SLICE_BYTES) continue;
      sizeBytes = 0;
      await otherWork();
    }
  return hash.digest('hex');
}

function* hashed(files: ReadonlyMap<string, ArtifactFile>): Generator<Uint8Array> {
  for (const name of [...files.keys()].sort()) {
    const file = files.get(name)!;
    yield Buffer.from(`${name}\0${sizeOfFile(file)}\0`);
    yield* piecesOfFile(file);
  }
}

/** Artifacts in a local or mounted folder. */
export class FolderArtifactStore implements ArtifactStore {
  readonly root: string;
  constructor(root: string) {
    this.root = path.resolve(root);
  }

  async put(
    uri: string,
    files: ReadonlyMap<string, ArtifactFile>,
    sha256 = artifactSha256(files),
  ): Promise<ArtifactRef> {
    const target = this.#at(uri);
    const temporary = `${target}.${randomUUID()}.tmp`;
    await mkdir(temporary, { recursive: true });
    for (const [name, content] of files) {
      if (name !== path.basename(name))
        throw new ArtifactError(`Artifact file names hold no folders, got ${name}`);
      const file = await open(path.join(temporary, name), 'w');
      await writeAll(file, piecesOfFile(content));
      await file.sync();
      await file.close();
    }
    await syncFolder(temporary);
    try {
      await rename(temporary, target);
    } catch (cause) {
      await rm(temporary, { recursive: true, force: true });
      const existing = await this.#read(uri).catch(() => undefined);
      if (existing && artifactSha256(existing) === sha256) return { uri, sha256 };
      throw new ArtifactError(`${uri} exists already with other content in ${this.root}`, { cause });
    }
    await syncFolder(path.dirname(target));
    await removeLeftBehind(path.dirname(target));
    return { uri, sha256 };
  }

  async get({ uri, sha256 }: ArtifactRef): Promise<Map<string, Buffer>> {
    const files = await this.#read(uri).catch((cause) => {
      throw new ArtifactError(`Artifact ${uri} is not in ${this.root}: ${(cause as Error).message}`, {
        cause,
      });
    });
    const actual = artifactSha256(files);
    if (actual !== sha256)
      throw new ArtifactError(
        `Artifact ${uri} is corrupt: its sha256 is ${actual}, expected ${sha256}. Restore it from a backup or use an older one.`,
      );
    return files;
  }

  async list(folder: string): Promise<string[]> {
    const entries = await readdir(this.#at(folder), { withFileTypes: true }).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return [];
        throw error;
      },
    );
    return entries
      .filter((e) => e.isDirectory() && !e.name.endsWith('.tmp'))
      .map((e) => `${folder}/${e.name}`)
      .sort();
  }

  async remove(uri: string): Promise<void> {
    await rm(this.#at(uri), { recursive: true, force: true });
  }

  async #read(uri: string): Promise<Map<string, Buffer>> {
    const folder = this.#at(uri);
    const files = new Map<string, Buffer>();
    for (const name of (await readdir(folder)).sort())
      files.set(name, await readFile(path.join(folder, name)));
    return files;
  }

  #at(uri: string): string {
    const full = path.resolve(this.root, uri);
    if (full !== this.root && !full.startsWith(this.root + path.sep))
      throw new ArtifactError(`Artifact uri ${uri} leaves the store`);
    return full;
  }
}

/** Many small pieces with one call each would cost more than the bytes. */
async function writeAll(file: FileHandle, pieces: readonly Uint8Array[]): Promise<void> {
  for (let first = 0; first < pieces.length; first += PIECES_PER_WRITE) {
    let rest = pieces.slice(first, first + PIECES_PER_WRITE).filter((piece) => piece.length > 0);
    while (rest.length > 0) {
      let { bytesWritten } = await file.writev(rest);
      const next = rest.findIndex((piece) => {
        if (bytesWritten < piece.length) return true;
        bytesWritten -= piece.length;
        return false;
      });
      rest = next < 0 ? [] : [rest[next]!.subarray(bytesWritten), ...rest.slice(next + 1)];
    }
  }
}

/** Removes what writers left that were killed half way: none takes an hour. */
async function removeLeftBehind(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.endsWith('.tmp')) continue;
    const temporary = path.join(folder, name);
    const { mtimeMs } = await stat(temporary).catch(() => ({ mtimeMs: Date.now() })); // its writer is done
    if (mtimeMs < Date.now() - LEFT_BEHIND_MS) await rm(temporary, { recursive: true, force: true });
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  await handle.sync();
  await handle.close();
}
