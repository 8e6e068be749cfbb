/** Reads and checks policy.json and ranker.json. */
import { FEATURE_VERSION, NUM_DENSE, NUM_IDS } from '@onemall/features';
import {
  POLICY_FORMAT,
  POLICY_NORMALIZERS,
  type PolicyManifest,
  type PolicyNormalizer,
  RANKER_FORMAT,
  type RankerManifest,
} from './policy-ports.ts';
import { PublishedModelError } from './trainer-ports.ts';

type Files = ReadonlyMap<string, Uint8Array>;
type Check = readonly [field: string, ok: (value: unknown) => boolean, expected: string];

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 1;
const isNames = (value: unknown): boolean =>
  Array.isArray(value) && value.length > 0 && value.every((v) => typeof v === 'string');
const isCodeCounts = (value: unknown): boolean =>
  isObject(value) &&
  Object.values(value).every((v) => Array.isArray(v) && v.length === 3 && v.every(isCount));
const isWidths = (value: unknown): boolean =>
  Array.isArray(value) && value.length > 0 && value.every(isCount);
const isString = (value: unknown): boolean => typeof value === 'string';
const isNormalizer = (value: unknown): boolean =>
  value === undefined || POLICY_NORMALIZERS.includes(value as PolicyNormalizer);
const isVersion = (value: unknown): boolean => value === undefined || isString(value);
const isStep = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;

/** @throws PublishedModelError */
export function readPolicyManifest(files: Files): PolicyManifest {
  return readManifest(files, 'policy.json', 'RETRIEVER', POLICY_FORMAT, [
    ['policyVersion', isString, 'a text'],
    ['step', isStep, 'a whole number'],
    ['dim', isCount, 'a count'],
    ['contextRows', isCount, 'a count'],
    ['scenarios', isNames, 'a list of names'],
    ['codebookVersions', isObject, 'an object'],
    ['numCodes', isCodeCounts, 'three counts by scenario'],
    ['cacheWidth', isCount, 'a count'],
    ['historyLength', isCount, 'a count'],
    ['beamWidths', isWidths, 'a list of counts'],
    ['itemTowerRows', isCount, 'a count'],
    ['normalizer', isNormalizer, `one of ${POLICY_NORMALIZERS.join(', ')}`],
    ['trieVersion', isVersion, 'a text'],
    ['files', isObject, 'file names by role'],
  ]) as unknown as PolicyManifest;
}

/** @throws PublishedModelError, also when it was trained on other features than this code makes */
export function readRankerManifest(files: Files): RankerManifest {
  const manifest = readManifest(files, 'ranker.json', 'RANKER', RANKER_FORMAT, [
    ['rankerVersion', isString, 'a text'],
    ['step', isStep, 'a whole number'],
    ['scenarios', isNames, 'a list of names'],
    ['featureVersion', isCount, 'a count'],
    ['numDense', isCount, 'a count'],
    ['numIds', isCount, 'a count'],
    ['batchRows', isCount, 'a count'],
    ['wideRows', (value) => value === undefined || isCount(value), 'a count'],
    ['egpmScale', isObject, 'a number by scenario'],
    ['metrics', isObject, 'numbers by name'],
    ['files', isObject, 'file names by role'],
  ]) as unknown as RankerManifest;
  const { featureVersion, numDense, numIds } = manifest;
  if (featureVersion !== FEATURE_VERSION || numDense !== NUM_DENSE || numIds !== NUM_IDS)
    throw new PublishedModelError(
      `Ranker ${manifest.rankerVersion} reads features of version ${featureVersion} (${numDense} dense, ${numIds} ids); this code makes version ${FEATURE_VERSION} (${NUM_DENSE} dense, ${NUM_IDS} ids). Train and publish a ranker with this code.`,
    );
  return manifest;
}

function readManifest(
  files: Files,
  name: string,
  model: string,
  format: number,
  checks: readonly Check[],
): Record<string, unknown> {
  const bytes = files.get(name);
  if (!bytes)
    throw new PublishedModelError(
      `The published model has no ${name}; it holds ${[...files.keys()].join(', ')}`,
    );
  let manifest: unknown;
  try {
    manifest = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new PublishedModelError(`${name} is no JSON text: ${(cause as Error).message}`, { cause });
  }
  if (!isObject(manifest))
    throw new PublishedModelError(`${name} must hold an object, got ${JSON.stringify(manifest)}`);
  if (manifest.model !== model)
    throw new PublishedModelError(`${name} describes a ${manifest.model}, expected a ${model}`);
  if (manifest.format !== format)
    throw new PublishedModelError(
      `${name} has format ${manifest.format}, this code reads format ${format}. Publish the model with this version of the code.`,
    );
  for (const [field, ok, expected] of checks)
    if (!ok(manifest[field]))
      throw new PublishedModelError(
        `${name}: ${field} must be ${expected}, got ${JSON.stringify(manifest[field])}`,
      );
  return manifest;
}
