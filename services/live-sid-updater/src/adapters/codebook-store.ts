import type { Codebook as CodebookRecord } from '@onemall/contracts';
import { type Codebook, readCodebook } from '@onemall/quantization';
import { ArtifactError, type ArtifactStore } from '@onemall/service-kit';

export const codebookUri = (scenario: string, version: number): string => `codebooks/${scenario}/${version}`;

/** @throws ArtifactError, CodebookFileError, or Error if the artifact is another codebook than the record says */
export async function loadCodebook(artifacts: ArtifactStore, record: CodebookRecord): Promise<Codebook> {
  const codebook = readCodebook(await artifacts.get(record));
  const says = `${record.scenario} version ${record.codebookVersion}, ${record.dim} numbers, codes ${record.numCodes.join()}`;
  const holds = `${codebook.scenario} version ${codebook.version}, ${codebook.dim} numbers, codes ${codebook.numCodes.join()}`;
  if (says !== holds)
    throw new Error(
      `Artifact ${record.uri} holds the codebook of ${holds}, but its record in codebooks says ${says}`,
    );
  return codebook;
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
