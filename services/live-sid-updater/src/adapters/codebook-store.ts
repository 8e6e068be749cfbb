import type { Codebook as CodebookRecord } from '@onemall/contracts';
import { LiveTower } from '@onemall/learning/live-tower';
import { CodebookEncoder, readCodebook } from '@onemall/quantization';
import { ArtifactError, type ArtifactStore } from '@onemall/service-kit';

export const codebookUri = (scenario: string, version: number): string => `codebooks/${scenario}/${version}`;

export interface ServedCodebook {
  encoder: CodebookEncoder;
  /** Frozen, where the codebook of live rooms was made with one; rooms are the mean of their products without. */
  tower: LiveTower | null;
}

/**
 * @throws ArtifactError, CodebookFileError, PublishedModelError, or Error if the artifact is another codebook, or holds
 * another tower, than the record says
 */
export async function loadCodebook(
  artifacts: ArtifactStore,
  record: CodebookRecord,
): Promise<ServedCodebook> {
  const files = await artifacts.get(record);
  const codebook = readCodebook(files);
  const says = `${record.scenario} version ${record.codebookVersion}, ${record.dim} numbers, codes ${record.numCodes.join()}`;
  const holds = `${codebook.scenario} version ${codebook.version}, ${codebook.dim} numbers, codes ${codebook.numCodes.join()}`;
  if (says !== holds)
    throw new Error(
      `Artifact ${record.uri} holds the codebook of ${holds}, but its record in codebooks says ${says}`,
    );
  if (record.towerVersion === null) return { encoder: await CodebookEncoder.open(codebook), tower: null };
  const tower = await LiveTower.open(files);
  if (tower.version !== record.towerVersion || tower.dim !== codebook.dim)
    throw new Error(
      `The record of ${record.uri} names the tower ${record.towerVersion} of ${codebook.dim} numbers, the artifact holds ${tower.version} of ${tower.dim}`,
    );
  return { encoder: await CodebookEncoder.open(codebook), tower };
}

/**
 * Stores a first codebook. One that a crashed start left without a record is replaced: nobody can have used it.
 */
export async function putFirstCodebook(
  artifacts: ArtifactStore,
  scenario: string,
  version: number,
  files: ReadonlyMap<string, Uint8Array>,
): Promise<{ uri: string; sha256: string }> {
  const uri = codebookUri(scenario, version);
  try {
    return await artifacts.put(uri, files);
  } catch (error) {
    if (!(error instanceof ArtifactError)) throw error;
    await artifacts.remove(uri);
    return artifacts.put(uri, files);
  }
}
