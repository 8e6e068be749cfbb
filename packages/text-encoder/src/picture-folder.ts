/** Pictures of items as files `<item id>.ppm`, the one form of picture that is decoded already: binary PPM (P6), 8 bits a colour. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Picture } from './onnx-image-encoder.ts';

/** A file that is no picture. */
export class PictureError extends Error {
  override name = 'PictureError';
}

const HEADER = /^P6\s(?:\s|#[^\n]*\n)*(\d+)\s(?:\s|#[^\n]*\n)*(\d+)\s(?:\s|#[^\n]*\n)*(\d+)\s/;
/** Comments in a header may be long, but not so long. */
const MAX_HEADER = 1_024;

/** @throws PictureError saying what was expected and what came */
export function readPpm(bytes: Uint8Array): Picture {
  const header = HEADER.exec(Buffer.from(bytes.subarray(0, MAX_HEADER)).toString('latin1'));
  if (!header) throw new PictureError('expected a binary PPM: P6, width, height and 255');
  const [width, height, most] = header.slice(1).map(Number) as [number, number, number];
  if (most !== 255) throw new PictureError(`expected 8 bits a colour (255), got ${most}`);
  const rgb = bytes.subarray(header[0].length);
  if (width < 1 || height < 1 || rgb.length !== width * height * 3)
    throw new PictureError(`${width} x ${height} pixels are ${width * height * 3} bytes, got ${rgb.length}`);
  return { width, height, rgb };
}

/** The picture of an item; null where it has none. @throws PictureError */
export async function readPicture(folder: string, itemId: string): Promise<Picture | null> {
  // An id is no path.
  const file = path.join(folder, `${encodeURIComponent(itemId)}.ppm`);
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new PictureError(`${file} cannot be read: ${(cause as Error).message}`, { cause });
  }
  try {
    return readPpm(bytes);
  } catch (cause) {
    throw new PictureError(`${file}: ${(cause as Error).message}`, { cause });
  }
}
