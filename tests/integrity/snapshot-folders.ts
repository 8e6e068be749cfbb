/** Snapshots where they lie: folders of files below the artifact store. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Lab } from './lab.ts';

export const snapshotsOf = (lab: Lab): string =>
  path.join(lab.scene.env.ONEMALL_ARTIFACTS_URI!, 'snapshots', lab.groupId);

/** Folders of a partition's snapshots, oldest first. */
export const snapshotFolders = (lab: Lab, partition: number): Promise<string[]> =>
  foldersIn(lab, `${partition}`);
/** Folders of the segments of its histories, which its snapshots share. */
export const segmentFolders = (lab: Lab, partition: number): Promise<string[]> =>
  foldersIn(lab, `histories-${partition}`);

async function foldersIn(lab: Lab, kind: string): Promise<string[]> {
  const folder = path.join(snapshotsOf(lab), kind);
  const names = await readdir(folder).catch(() => []);
  return names
    .filter((name) => !name.endsWith('.tmp'))
    .sort()
    .map((name) => path.join(folder, name));
}

/** Changes one byte in the middle of the largest file. */
export async function damage(folder: string): Promise<void> {
  const files = await Promise.all(
    (await readdir(folder)).map(async (name) => ({
      file: path.join(folder, name),
      bytes: await readFile(path.join(folder, name)),
    })),
  );
  if (files.length === 0) return; // its owner is removing it
  const { file, bytes } = files.sort((a, b) => b.bytes.length - a.bytes.length)[0]!;
  const middle = bytes.length >> 1;
  bytes[middle] = bytes[middle]! ^ 0xff;
  await writeFile(file, bytes);
}
