import { existsSync } from 'node:fs';

/** Amazon Beauty as it lies beside a checkout that has it, with a slash at the end; null elsewhere. */
export const beautyFolder = (): string | null =>
  ['../../shared/data/amazon-beauty', '../../../shared/data/amazon-beauty']
    .map((folder) => new URL(`${folder}/`, import.meta.url).pathname)
    .find((folder) => existsSync(folder)) ?? null;
