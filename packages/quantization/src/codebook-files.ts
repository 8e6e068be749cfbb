/**
 * A codebook as artifact files: codebook.json (what it is), one level<N>.bin per level (float32, little endian), and
 * projector.onnx where it has a projector; `projector` in codebook.json is null where it quantizes m itself.
 * The bytes depend on the codebook alone, so equal codebooks are equal artifacts.
 */
import { type Codebook, type CodebookLevel, NUM_LEVELS } from './codebook.ts';
import { fsqNumWeights } from './fsq.ts';
import type { CodeMatch } from './match-codebooks.ts';
import type { Projector } from './projector.ts';

const FORMAT_VERSION = 1;
const PROJECTOR = 'projector.onnx';

/** Files that are not a codebook of this format, or a damaged one. */
export class CodebookFileError extends Error {
  override name = 'CodebookFileError';
}

interface LevelHeader {
  kind: 'kmeans' | 'fsq';
  numCodes: number;
  file: string;
  bits?: number;
  hidden?: number;
  scale?: number;
}
interface ProjectorHeader {
  file: string;
  inDim: number;
  outDim: number;
  trainedOn: string;
}
interface Header {
  format: 'onemall-codebook';
  formatVersion: number;
  scenario: string;
  version: number;
  dim: number;
  cutoffMs: number;
  textEncoder?: string;
  /** Null, or absent in files of an older build: the identity. */
  projector?: ProjectorHeader | null;
  levels: LevelHeader[];
}

export function writeCodebook(codebook: Codebook): Map<string, Uint8Array> {
  const { projector } = codebook;
  const header: Header = {
    format: 'onemall-codebook',
    formatVersion: FORMAT_VERSION,
    scenario: codebook.scenario,
    version: codebook.version,
    dim: codebook.dim,
    cutoffMs: codebook.cutoffMs,
    ...(codebook.textEncoder !== undefined && { textEncoder: codebook.textEncoder }),
    projector: projector
      ? {
          file: PROJECTOR,
          inDim: projector.inDim,
          outDim: projector.outDim,
          trainedOn: projector.trainedOn,
        }
      : null,
    levels: codebook.levels.map((level, l) => ({
      kind: level.kind,
      numCodes: level.numCodes,
      file: `level${l + 1}.bin`,
      ...(level.kind === 'fsq' && { bits: level.bits, hidden: level.hidden, scale: level.scale }),
    })),
  };
  const files = new Map<string, Uint8Array>([
    ['codebook.json', Buffer.from(`${JSON.stringify(header, null, 2)}\n`)],
  ]);
  for (const [l, level] of codebook.levels.entries())
    files.set(`level${l + 1}.bin`, toLittleEndian(level.kind === 'kmeans' ? level.centroids : level.weights));
  if (projector) files.set(PROJECTOR, projector.model);
  return files;
}

/** @throws CodebookFileError naming the file, what was expected and what came */
export function readCodebook(files: ReadonlyMap<string, Uint8Array>): Codebook {
  const json = files.get('codebook.json');
  if (!json)
    throw new CodebookFileError(
      `A codebook has a file codebook.json; this artifact has ${[...files.keys()].join(', ') || 'no files'}`,
    );
  let header: Partial<Header>;
  try {
    header = JSON.parse(Buffer.from(json).toString('utf8')) as Partial<Header>;
  } catch (cause) {
    throw new CodebookFileError(`codebook.json is not JSON: ${(cause as Error).message}`, { cause });
  }
  const expect = (ok: boolean, what: string, got: unknown): void => {
    if (!ok) throw new CodebookFileError(`codebook.json: expected ${what}, got ${JSON.stringify(got)}`);
  };
  expect(header.format === 'onemall-codebook', 'format "onemall-codebook"', header.format);
  expect(
    header.formatVersion === FORMAT_VERSION,
    `formatVersion ${FORMAT_VERSION} (train the codebook again with this build)`,
    header.formatVersion,
  );
  const { scenario, version, dim, cutoffMs, levels, textEncoder } = header;
  expect(typeof scenario === 'string' && scenario.length > 0, 'a scenario', scenario);
  expect(isCount(version), 'version to be a whole number of at least 1', version);
  expect(isCount(dim), 'dim to be a whole number of at least 1', dim);
  expect(Number.isFinite(cutoffMs), 'cutoffMs to be a number', cutoffMs);
  expect(Array.isArray(levels) && levels.length === NUM_LEVELS, `${NUM_LEVELS} levels`, levels?.length);
  const projector = header.projector ? readProjector(header.projector, dim!, files, expect) : undefined;
  const read = levels!.map((level) => readLevel(level, projector?.outDim ?? dim!, files, expect));
  return {
    scenario: scenario!,
    version: version!,
    numCodes: [read[0]!.numCodes, read[1]!.numCodes, read[2]!.numCodes],
    dim: dim!,
    levels: read,
    cutoffMs: cutoffMs!,
    ...(projector && { projector }),
    ...(textEncoder !== undefined && { textEncoder }),
  };
}

/** Its graph is compared with these lengths when it is opened. */
function readProjector(
  { file, inDim, outDim, trainedOn }: ProjectorHeader,
  dim: number,
  files: ReadonlyMap<string, Uint8Array>,
  expect: (ok: boolean, what: string, got: unknown) => void,
): Projector {
  expect(inDim === dim, `projector.inDim to be the codebook's dim, ${dim}`, inDim);
  expect(isCount(outDim), 'projector.outDim to be a whole number of at least 1', outDim);
  expect(typeof trainedOn === 'string', 'projector.trainedOn to say where its weights are from', trainedOn);
  const model = files.get(file);
  if (!model) throw new CodebookFileError(`codebook.json names ${file}, which the artifact does not have`);
  return { inDim, outDim, trainedOn, model };
}

function readLevel(
  level: LevelHeader,
  dim: number,
  files: ReadonlyMap<string, Uint8Array>,
  expect: (ok: boolean, what: string, got: unknown) => void,
): CodebookLevel {
  expect(level.kind === 'kmeans' || level.kind === 'fsq', 'a level of kind kmeans or fsq', level.kind);
  expect(isCount(level.numCodes), 'numCodes to be a whole number of at least 1', level.numCodes);
  expect(typeof level.file === 'string', 'a file name per level', level.file);
  if (level.kind === 'kmeans')
    return {
      kind: 'kmeans',
      numCodes: level.numCodes,
      centroids: fromLittleEndian(files, level.file, level.numCodes * dim),
    };
  const { bits, hidden, scale } = level;
  expect(isCount(bits) && 2 ** bits === level.numCodes, 'bits with 2^bits = numCodes', bits);
  expect(isCount(hidden), 'hidden to be a whole number of at least 1', hidden);
  expect(typeof scale === 'number' && scale > 0, 'scale to be above 0', scale);
  return {
    kind: 'fsq',
    numCodes: level.numCodes,
    bits: bits!,
    hidden: hidden!,
    scale: scale!,
    weights: fromLittleEndian(files, level.file, fsqNumWeights(dim, hidden!, bits!)),
  };
}

const isCount = (n: unknown): n is number => Number.isInteger(n) && (n as number) >= 1;

function toLittleEndian(numbers: Float32Array): Uint8Array {
  const bytes = new Uint8Array(numbers.length * 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < numbers.length; i++) view.setFloat32(i * 4, numbers[i]!, true);
  return bytes;
}

function fromLittleEndian(files: ReadonlyMap<string, Uint8Array>, name: string, count: number): Float32Array {
  const bytes = files.get(name);
  if (!bytes) throw new CodebookFileError(`codebook.json names ${name}, which the artifact does not have`);
  if (bytes.length !== count * 4)
    throw new CodebookFileError(
      `${name}: expected ${count * 4} bytes (${count} float32), got ${bytes.length}`,
    );
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    numbers[i] = view.getFloat32(i * 4, true);
    if (!Number.isFinite(numbers[i]))
      throw new CodebookFileError(`${name}: number ${i} is ${numbers[i]}; the file is damaged`);
  }
  return numbers;
}

const CONTINUES = 'continues.json';

/** What a codebook version continues: stands beside its files, so that a policy can be carried over to it. */
export interface Continues {
  /** The version before. */
  version: number;
  match: CodeMatch;
}

export function writeContinues({ version, match }: Continues): [name: string, bytes: Uint8Array] {
  return [CONTINUES, Buffer.from(JSON.stringify({ version, match: match.map((level) => [...level]) }))];
}

/** @returns null for a codebook that began anew @throws CodebookFileError for a damaged file */
export function readContinues(files: ReadonlyMap<string, Uint8Array>): Continues | null {
  const bytes = files.get(CONTINUES);
  if (!bytes) return null;
  const { numCodes } = readCodebook(files);
  let read: { version?: unknown; match?: unknown };
  try {
    read = JSON.parse(Buffer.from(bytes).toString('utf8')) as typeof read;
  } catch (cause) {
    throw new CodebookFileError(`${CONTINUES} is not JSON: ${(cause as Error).message}`, { cause });
  }
  const match = read.match as number[][];
  const whole =
    isCount(read.version) &&
    Array.isArray(match) &&
    match.length === NUM_LEVELS &&
    match.every(
      (level, l) => Array.isArray(level) && level.length === numCodes[l] && level.every(Number.isInteger),
    );
  if (!whole)
    throw new CodebookFileError(
      `${CONTINUES}: expected a version and one old code, or -1, for each of ${numCodes.join(', ')} codes`,
    );
  return {
    version: read.version as number,
    match: match.map((level) => Int32Array.from(level)) as unknown as CodeMatch,
  };
}
