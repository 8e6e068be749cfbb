import type { Item } from '@onemall/contracts';
import { Catalogue } from '@onemall/quantization';
import { openItemEncoder } from '@onemall/text-encoder';
import type { JobConfig } from '../config.ts';

/** Items whose embedding cannot be used are left out and counted; the live-sid-updater tells of each, and of bad pictures. */
export async function fillCatalogue(
  items: ReadonlyMap<string, Item>,
  config: Pick<JobConfig, 'textEmbeddingDim' | 'textEncoderFolder' | 'picturesFolder'>,
): Promise<{ catalogue: Catalogue; refused: number }> {
  const { textEmbeddingDim, textEncoderFolder, picturesFolder } = config;
  const encoder =
    textEncoderFolder || picturesFolder ? await openItemEncoder(textEncoderFolder, { picturesFolder }) : null;
  const catalogue = new Catalogue(textEmbeddingDim, encoder);
  let refused = 0;
  for (const item of items.values()) {
    try {
      catalogue.put(item);
    } catch (error) {
      if ((error as Error).name !== 'ItemRefusedError') throw error;
      refused++;
    }
  }
  await catalogue.embedTexts(items.keys());
  return { catalogue, refused };
}
