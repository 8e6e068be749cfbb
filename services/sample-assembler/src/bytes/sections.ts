import { letGo } from './let-go.ts';

/**
 * Parts of a snapshot by name. What is put in are views of live memory: it may not change until they are written, but for
 * what `copyAllBut` has copied.
 */
export class Sections {
  readonly #parts = new Map<string, Uint8Array[]>();
  readonly #copies: Uint8Array[] = [];
  readonly facts: Record<string, unknown> = {};

  put(name: string, ...pieces: ArrayBufferView[]): void {
    this.#parts.set(
      name,
      pieces.map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)),
    );
  }
  /** Copies all parts but those whose names begin so. */
  copyAllBut(prefix: string): void {
    for (const [name, pieces] of this.#parts)
      if (!name.startsWith(prefix))
        this.#parts.set(
          name,
          pieces.map((piece) => {
            const copy = piece.slice();
            this.#copies.push(copy);
            return copy;
          }),
        );
  }
  /** Frees what `copyAllBut` has copied; nobody may read the parts or their files any more. */
  letGoOfCopies(): void {
    for (const copy of this.#copies.splice(0)) letGo(copy);
  }
  /** @throws Error where there is no such part */
  get(name: string): Uint8Array {
    const pieces = this.#parts.get(name);
    if (!pieces) throw new Error(`The snapshot has no part ${name}`);
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }
  /** @throws Error where there is no such fact */
  fact<V>(name: string): V {
    if (!(name in this.facts)) throw new Error(`The snapshot does not say ${name}`);
    return this.facts[name] as V;
  }

  /** As files: the small parts and the facts in one, and each part whose name begins with a capital in one of its own. */
  files(): Map<string, Uint8Array[]> {
    const files = new Map<string, Uint8Array[]>();
    const index: [name: string, length: number][] = [];
    const small: Uint8Array[] = [];
    for (const [name, pieces] of this.#parts) {
      if (isFile(name)) {
        files.set(name, pieces);
        continue;
      }
      index.push([name, pieces.reduce((sum, piece) => sum + piece.length, 0)]);
      small.push(...pieces);
    }
    const head = Buffer.from(JSON.stringify({ facts: this.facts, index }));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(head.length);
    files.set(STATE_FILE, [length, head, ...small]);
    return files;
  }

  static ofFiles(files: ReadonlyMap<string, Buffer>): Sections {
    const state = files.get(STATE_FILE);
    if (!state) throw new Error(`The snapshot has no file ${STATE_FILE}`);
    const sections = new Sections();
    let at = 4 + state.readUInt32LE(0);
    const { facts, index } = JSON.parse(state.toString('utf8', 4, at)) as {
      facts: Record<string, unknown>;
      index: [string, number][];
    };
    Object.assign(sections.facts, facts);
    for (const [name, length] of index) {
      sections.put(name, state.subarray(at, at + length));
      at += length;
    }
    for (const [name, bytes] of files) if (isFile(name)) sections.put(name, bytes);
    return sections;
  }
}

const STATE_FILE = 'state';
const isFile = (name: string): boolean => /^[A-Z]/.test(name);
