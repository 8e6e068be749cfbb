import { compilePublished } from './engine/program.ts';
import { cacheWidth, nextCodes } from './models/next-codes.ts';
import { contextRows, itemVectors, nextCode, type RetrievalSizes, userContext } from './models/onemall.ts';
import { POLICY_FORMAT, type PolicyManifest } from './policy-ports.ts';
import type { RetrievalExport } from './trainer-ports.ts';

/** Rows of the published item tower's static batch. */
export const ITEM_TOWER_ROWS = 64;
export const DEFAULT_BEAM_WIDTHS: readonly number[] = [64];

/**
 * The files of a published policy. Each graph holds the weights that it reads as constants and uses standard operators only.
 * @param weights by parameter and buffer name
 * @throws Error where the options do not go with each other or with the training
 */
export function exportPolicy(
  weights: ReadonlyMap<string, Float32Array>,
  step: number,
  sizes: RetrievalSizes,
  {
    policyVersion,
    codebookVersions,
    beamWidths = DEFAULT_BEAM_WIDTHS,
    plainDecoders = false,
    normalizer = sizes.normalizer ?? 'codes',
    trieVersion,
  }: RetrievalExport,
): Map<string, Uint8Array> {
  const isMasked = sizes.normalizer === 'trie';
  if (isMasked && normalizer === 'codes')
    throw new Error(
      'A policy that was trained over the children in a trie knows nothing of other codes: it cannot be published with normalizer codes',
    );
  if (isMasked && trieVersion === undefined)
    throw new Error(
      'A policy that was trained over the children in a trie is published with its trieVersion',
    );
  const widths = [...new Set(beamWidths)].sort((a, b) => a - b);
  if (widths.length === 0 || !widths.every((w) => Number.isInteger(w) && w >= 1))
    throw new Error(`beamWidths must be whole numbers of at least 1, got [${beamWidths}]`);
  const { layout, preset, historyLength } = sizes;
  const files = new Map<string, Uint8Array>();
  const roles: Record<string, string> = {};
  const put = (role: string, model: Uint8Array): void => {
    roles[role] = `${role}.onnx`;
    files.set(`${role}.onnx`, model);
  };
  put(
    'context',
    compilePublished(weights, (ops) => ({ context: userContext(ops, sizes, 1) })),
  );
  put(
    'item-tower',
    compilePublished(weights, (ops) => ({ vectors: itemVectors(ops, sizes, ITEM_TOWER_ROWS) })),
  );
  put(
    'decode-0',
    compilePublished(weights, (ops) => nextCodes(ops, sizes, 0, 1)),
  );
  for (const width of widths)
    for (const level of [1, 2] as const)
      put(
        `decode-${level}-${width}`,
        compilePublished(weights, (ops) => nextCodes(ops, sizes, level, width)),
      );
  if (plainDecoders)
    for (const width of [1, ...widths])
      for (const level of width === 1 ? [0] : [1, 2])
        put(
          `plain-${level}-${width}`,
          compilePublished(weights, (ops) => ({ logProbs: nextCode(ops, sizes, level, width) })),
        );
  const manifest: PolicyManifest = {
    model: 'RETRIEVER',
    format: POLICY_FORMAT,
    policyVersion,
    step,
    preset: preset.name,
    dim: preset.dim,
    contextRows: contextRows(sizes),
    scenarios: [...layout.scenarios],
    codebookVersions,
    numCodes: Object.fromEntries(layout.scenarios.map((s) => [s, [...layout.numCodes[s]!]])),
    cacheWidth: cacheWidth(sizes),
    historyLength,
    beamWidths: widths,
    itemTowerRows: ITEM_TOWER_ROWS,
    normalizer,
    ...(isMasked && { trieVersion }),
    files: roles,
  };
  files.set('policy.json', new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`));
  return files;
}
