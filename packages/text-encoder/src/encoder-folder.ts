/** The encoder of a folder that a user gives, as the catalogue takes it: texts of items, each encoded once. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { ItemText, ItemTextEncoder, Vectors } from '@onemall/quantization';
import { CachedTextEncoder } from './cached-encoder.ts';
import { EncoderFileError, OnnxTextEncoder } from './onnx-encoder.ts';
import type { TextEncoder } from './text-encoder.ts';

/** Title, category and tags as one text. */
export const itemText = ({ title, category, tags }: ItemText): string =>
  [title, category, tags.join(', ')].filter((part) => part !== '').join('. ');

export class ItemEncoder implements ItemTextEncoder {
  readonly #encoder: TextEncoder;
  constructor(encoder: TextEncoder) {
    this.#encoder = encoder;
  }
  get name(): string {
    return this.#encoder.name;
  }
  get dim(): number {
    return this.#encoder.dim;
  }
  encode(items: readonly ItemText[]): Promise<Vectors> {
    return this.#encoder.encode(items.map(itemText));
  }
}

/**
 * @param folder model.onnx, tokenizer.json, tokenizer_config.json and encoder.json
 * @param cachedTexts vectors kept, the longest unused leave first
 * @throws EncoderFileError naming the folder or file and what is wrong with it
 */
export async function openItemEncoder(folder: string, cachedTexts = 100_000): Promise<ItemEncoder> {
  const names = await readdir(folder).catch((cause: unknown) => {
    throw new EncoderFileError(`There is no folder ${folder} with a text encoder`, { cause });
  });
  const files = new Map<string, Uint8Array>();
  for (const name of names) files.set(name, await readFile(path.join(folder, name)));
  return new ItemEncoder(new CachedTextEncoder(await OnnxTextEncoder.load(files), cachedTexts));
}
