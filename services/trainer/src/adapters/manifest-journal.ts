/**
 * The manifests of the steps since the oldest checkpoint, one JSON line each, synced before the step begins.
 *
 * Opening the journal writes it anew under its name, so a stalled trainer that wakes up later holds a file that has no
 * name any more: its next line finds that out and ends it.
 */
import { type FileHandle, mkdir, open, readFile, rename, stat } from 'node:fs/promises';
import path from 'node:path';
import { parseManifest, type StepManifest } from '../stages/manifest.ts';

export class JournalTakenError extends Error {
  override name = 'JournalTakenError';
}

export class ManifestJournal {
  readonly #file: string;
  #own: OwnFile;

  private constructor(file: string, own: OwnFile) {
    this.#file = file;
    this.#own = own;
  }

  /** All whole manifests of an earlier process, in the order of their steps' latest writing; empty if there is none. */
  static async read(folder: string): Promise<StepManifest[]> {
    const text = await readFile(journalFile(folder), 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '';
      throw error;
    });
    return text
      .split('\n')
      .map(parseManifest)
      .filter((m) => m !== null);
  }

  /** Takes the journal over, holding exactly these manifests. */
  static async take(folder: string, manifests: readonly StepManifest[]): Promise<ManifestJournal> {
    await mkdir(folder, { recursive: true });
    const file = journalFile(folder);
    return new ManifestJournal(file, await writeWhole(file, manifests));
  }

  /** Durable when it resolves. @throws JournalTakenError when another trainer has taken the journal over */
  async append(manifest: StepManifest): Promise<void> {
    await this.#checkOwner();
    const { handle } = this.#own;
    await handle.appendFile(`${JSON.stringify(manifest)}\n`);
    await handle.datasync();
  }

  /** Drops manifests of steps up to one. */
  async forgetUpTo(step: number): Promise<void> {
    await this.#checkOwner();
    const kept = (await ManifestJournal.read(path.dirname(this.#file))).filter((m) => m.step > step);
    const old = this.#own;
    this.#own = await writeWhole(this.#file, kept);
    await old.handle.close();
  }

  async close(): Promise<void> {
    await this.#own.handle.close();
  }

  async #checkOwner(): Promise<void> {
    const named = await stat(this.#file).catch(() => null);
    if (named?.ino !== this.#own.ino)
      throw new JournalTakenError(
        `${this.#file} belongs to another trainer process now: a second one was started for the same model. This one stops.`,
      );
  }
}

/** An open file keeps its number: nobody else gets it meanwhile. */
interface OwnFile {
  handle: FileHandle;
  ino: number;
}

const journalFile = (folder: string): string => path.join(folder, 'manifests.jsonl');

/** Replaces the file in one step; the handle appends to the new one. */
async function writeWhole(file: string, manifests: readonly StepManifest[]): Promise<OwnFile> {
  const temporary = `${file}.${process.pid}.tmp`;
  const handle = await open(temporary, 'w');
  await handle.appendFile(manifests.map((m) => `${JSON.stringify(m)}\n`).join(''));
  await handle.sync();
  await rename(temporary, file);
  const folder = await open(path.dirname(file), 'r');
  await folder.sync();
  await folder.close();
  return { handle, ino: (await handle.stat()).ino };
}
