import type { Item } from '@onemall/contracts';
import { Catalogue } from '@onemall/quantization';
import { openItemEncoder } from '@onemall/text-encoder';
import type { JobConfig } from '../config.ts';

/** Items whose embedding cannot be used are left out and counted; the live-sid-updater tells of each. */
export async function fillCatalogue(
  items: ReadonlyMap<string, Item>,
  { textEmbeddingDim, textEncoderFolder }: Pick<JobConfig, 'textEmbeddingDim' | 'textEncoderFolder'>,
): Promise<{ catalogue: Catalogue; refused: number }> {
  const encoder = textEncoderFolder ? await openItemEncoder(textEncoderFolder) : null;
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
