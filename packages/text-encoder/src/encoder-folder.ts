/** The encoders of a folder that a user gives, as the catalogue takes them: texts of items, each encoded once, and their pictures. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { ItemText, ItemTextEncoder, Vectors } from '@onemall/quantization';
import { CachedTextEncoder } from './cached-encoder.ts';
import { EncoderFileError, OnnxTextEncoder } from './onnx-encoder.ts';
import { type ImageEncoder, OnnxImageEncoder, type Picture } from './onnx-image-encoder.ts';
import { PictureError, readPicture } from './picture-folder.ts';
import type { TextEncoder } from './text-encoder.ts';

/** Title, category and tags as one text. */
export const itemText = ({ title, category, tags }: ItemText): string =>
  [title, category, tags.join(', ')].filter((part) => part !== '').join('. ');

/** Where pictures of items come from, and who is told of one that cannot be used. */
interface Pictures {
  encoder: ImageEncoder;
  folder: string;
  onRefused: (itemId: string, error: PictureError) => void;
}

export class ItemEncoder implements ItemTextEncoder {
  readonly #texts: TextEncoder;
  readonly #pictures: Pictures | null;
  constructor(texts: TextEncoder, pictures: Pictures | null = null) {
    this.#texts = texts;
    this.#pictures = pictures;
  }
  get name(): string {
    return this.#pictures ? `${this.#texts.name}+${this.#pictures.encoder.name}` : this.#texts.name;
  }
  get dim(): number {
    return this.#texts.dim + (this.#pictures?.encoder.dim ?? 0);
  }

  /** The text's vector, and behind it the picture's at length 1; zeros for an item without a picture. */
  async encode(items: readonly ItemText[]): Promise<Vectors> {
    const texts = await this.#texts.encode(items.map(itemText));
    if (!this.#pictures) return texts;
    const { encoder } = this.#pictures;
    const { dim } = this;
    const data = new Float32Array(items.length * dim);
    for (let row = 0; row < items.length; row++)
      data.set(texts.data.subarray(row * texts.dim, (row + 1) * texts.dim), row * dim);
    const shown = await this.#read(this.#pictures, items);
    const vectors = await encoder.encode(shown.map(({ picture }) => picture));
    for (const [i, { row }] of shown.entries()) {
      const vector = vectors.data.subarray(i * encoder.dim, (i + 1) * encoder.dim);
      const length = Math.hypot(...vector) || 1;
      data.set(
        vector.map((v) => v / length),
        row * dim + texts.dim,
      );
    }
    return { data, numVectors: items.length, dim };
  }

  async #read(
    { folder, onRefused }: Pictures,
    items: readonly ItemText[],
  ): Promise<{ row: number; picture: Picture }[]> {
    const shown: { row: number; picture: Picture }[] = [];
    for (const [row, { itemId }] of items.entries()) {
      try {
        const picture = await readPicture(folder, itemId);
        if (picture) shown.push({ row, picture });
      } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        onRefused(itemId, error);
      }
    }
    return shown;
  }
}

export interface ItemEncoderOptions {
  /** `<item id>.ppm`; the folder of the encoder must have an image encoder then. Empty: no pictures. */
  picturesFolder?: string;
  /** Told of each file there that is no picture; its item counts as one without. */
  onRefused?: (itemId: string, error: PictureError) => void;
  /** Vectors of texts that are kept, the longest unused leave first. */
  cachedTexts?: number;
}

/**
 * @param folder model.onnx, tokenizer.json, tokenizer_config.json and encoder.json; for pictures image.onnx and image-encoder.json
 * @throws EncoderFileError naming the folder or file and what is wrong with it
 */
export async function openItemEncoder(
  folder: string,
  { picturesFolder = '', onRefused = () => {}, cachedTexts = 100_000 }: ItemEncoderOptions = {},
): Promise<ItemEncoder> {
  const names = await listed(folder, 'a text encoder');
  const files = new Map<string, Uint8Array>();
  for (const name of names) files.set(name, await readFile(path.join(folder, name)));
  if (picturesFolder === '')
    return new ItemEncoder(new CachedTextEncoder(await OnnxTextEncoder.load(files), cachedTexts));
  await listed(picturesFolder, 'pictures of items');
  const encoder = await OnnxImageEncoder.load(files);
  const texts = new CachedTextEncoder(await OnnxTextEncoder.load(files), cachedTexts);
  return new ItemEncoder(texts, { encoder, folder: picturesFolder, onRefused });
}

const listed = (folder: string, what: string): Promise<string[]> =>
  readdir(folder).catch((cause: unknown) => {
    throw new EncoderFileError(`There is no folder ${folder} with ${what}`, { cause });
  });
