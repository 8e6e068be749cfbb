/** Files of a tiny image encoder and pictures for it. */
import { GraphBuilder } from '@onemall/learning/onnx';
import type { ImageEncoderOptions, Picture } from '../src/index.ts';

export const OPTIONS: ImageEncoderOptions = { size: 4, mean: [0, 0, 0], std: [1, 1, 1] };
const json = (value: object): Uint8Array => Buffer.from(JSON.stringify(value));

/** Mean of each channel, of the left half and of the right: float32 [1, 6]; with `flat` false [1, 6, 1]. */
export function tinyModel(size: number, flat = true): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const x = g.input('pixels', [1, 3, size, size], 'float32');
  const halves = g.reshape(x, [1, 3, size, 2, size / 2]);
  const rows = g.reduce('ReduceMean', halves, [4], false);
  const means = g.reduce('ReduceMean', rows, [2], false);
  g.output('vector', g.reshape(means, flat ? [1, 6] : [1, 6, 1]));
  return g.encode();
}
export const tinyImageEncoder = (model = tinyModel(4), options: object = OPTIONS) =>
  new Map([
    ['image.onnx', model],
    ['image-encoder.json', json(options)],
  ]);
/** Left half red, right half blue. */
export const picture = (width: number, height: number): Picture => ({
  width,
  height,
  rgb: Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const left = Math.floor(i / 3) % width < width / 2;
    return i % 3 === (left ? 0 : 2) ? 255 : 0;
  }),
});

/** The same as a file. */
export const ppm = ({ width, height, rgb }: Picture): Uint8Array =>
  Buffer.concat([Buffer.from(`P6\n# made by a test\n${width} ${height}\n255\n`), rgb]);
