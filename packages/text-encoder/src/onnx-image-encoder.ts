/** Pictures in, vectors out: the slot for a vision model that a user gives as an ONNX file. */
import { createHash } from 'node:crypto';
import { cpuSession } from '@onemall/learning/onnx';
import type { Vectors } from '@onemall/quantization';
import * as ort from 'onnxruntime-node';
import { EncoderFileError } from './onnx-encoder.ts';

/** A decoded picture. */
export interface Picture {
  width: number;
  height: number;
  /** Red, green and blue of each pixel, row by row: uint8 [height, width, 3]. */
  rgb: Uint8Array;
}

/** image-encoder.json */
export interface ImageEncoderOptions {
  /** Pictures are scaled to size x size. */
  size: number;
  /** By channel; a value is (v / 255 - mean) / std. */
  mean: [number, number, number];
  std: [number, number, number];
}

/** As TextEncoder, for pictures. Equal pictures give equal vectors. */
export interface ImageEncoder {
  readonly name: string;
  readonly dim: number;
  /** float32 [pictures, dim] */
  encode(pictures: readonly Picture[]): Promise<Vectors>;
  close(): Promise<void>;
}

const FILES = ['image.onnx', 'image-encoder.json'] as const;
const CHANNELS = 3;

export class OnnxImageEncoder implements ImageEncoder {
  readonly name: string;
  readonly dim: number;
  readonly #session: ort.InferenceSession;
  readonly #options: ImageEncoderOptions;

  private constructor(
    name: string,
    dim: number,
    session: ort.InferenceSession,
    options: ImageEncoderOptions,
  ) {
    this.name = name;
    this.dim = dim;
    this.#session = session;
    this.#options = options;
  }

  /**
   * @param files image.onnx (one input, float32 [1, 3, size, size]; first output float32 [1, dim]) and image-encoder.json
   * @throws EncoderFileError naming the file, what was expected and what came
   */
  static async load(files: ReadonlyMap<string, Uint8Array>, numThreads = 1): Promise<OnnxImageEncoder> {
    const missing = FILES.filter((file) => !files.has(file));
    if (missing.length > 0)
      throw new EncoderFileError(
        `An image encoder has ${FILES.join(' and ')}; missing: ${missing.join(', ')}`,
      );
    const options = readOptions(files.get('image-encoder.json')!);
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(files.get('image.onnx')!, cpuSession(numThreads));
    } catch (cause) {
      throw new EncoderFileError(`image.onnx does not load: ${(cause as Error).message}`, { cause });
    }
    const hash = createHash('sha256');
    for (const file of FILES) hash.update(files.get(file)!);
    const name = `image-${hash.digest('hex').slice(0, 16)}`;
    try {
      if (session.inputNames.length !== 1)
        throw new EncoderFileError(`image.onnx: expected one input, got ${session.inputNames.join(', ')}`);
      const probe = new OnnxImageEncoder(name, 0, session, options);
      const grey = { width: 1, height: 1, rgb: new Uint8Array(CHANNELS).fill(128) };
      const { length } = await probe.#one(grey);
      return new OnnxImageEncoder(name, length, session, options);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  async encode(pictures: readonly Picture[]): Promise<Vectors> {
    const { dim } = this;
    const data = new Float32Array(pictures.length * dim);
    for (const [row, picture] of pictures.entries()) data.set(await this.#one(picture), row * dim);
    return { data, numVectors: pictures.length, dim };
  }

  close(): Promise<void> {
    return this.#session.release();
  }

  async #one(picture: Picture): Promise<Float32Array> {
    const { size } = this.#options;
    const shape = [1, CHANNELS, size, size];
    const pixels = new ort.Tensor('float32', scaled(picture, this.#options), shape);
    let output: ort.Tensor | undefined;
    try {
      output = (await this.#session.run({ [this.#session.inputNames[0]!]: pixels }))[
        this.#session.outputNames[0]!
      ];
    } catch (cause) {
      throw new EncoderFileError(
        `image.onnx does not take float32 [${shape}], pictures of the size that image-encoder.json says: ${(cause as Error).message}`,
        { cause },
      );
    }
    if (!(output?.data instanceof Float32Array) || output.dims.length !== 2 || output.dims[0] !== 1)
      throw new EncoderFileError(
        `image.onnx: expected output ${this.#session.outputNames[0]} as float32 [1, dim], got ${output?.type} [${output?.dims}]`,
      );
    if (this.dim > 0 && output.data.length !== this.dim)
      throw new EncoderFileError(`image.onnx gave ${output.data.length} numbers after ${this.dim}`);
    return output.data;
  }
}

function readOptions(bytes: Uint8Array): ImageEncoderOptions {
  let options: ImageEncoderOptions;
  try {
    options = JSON.parse(Buffer.from(bytes).toString('utf8')) as ImageEncoderOptions;
  } catch (cause) {
    throw new EncoderFileError(`image-encoder.json is not JSON: ${(cause as Error).message}`, { cause });
  }
  const three = (list: unknown, ok: (v: number) => boolean): boolean =>
    Array.isArray(list) &&
    list.length === CHANNELS &&
    list.every((v) => Number.isFinite(v) && ok(v as number));
  if (!(Number.isInteger(options.size) && options.size >= 1))
    throw new EncoderFileError(`image-encoder.json: expected size of at least 1, got ${options.size}`);
  if (!three(options.mean, () => true) || !three(options.std, (v) => v > 0))
    throw new EncoderFileError(
      'image-encoder.json: expected mean and std as three numbers each, std above 0',
    );
  return options;
}

/** Bilinear, pixel centres at one half; float32 [3, size, size]. @throws RangeError for a picture whose bytes do not fit its size */
function scaled({ width, height, rgb }: Picture, { size, mean, std }: ImageEncoderOptions): Float32Array {
  if (!(width >= 1 && height >= 1) || rgb.length !== width * height * CHANNELS)
    throw new RangeError(
      `A picture of ${width} x ${height} has ${width * height * CHANNELS} bytes, got ${rgb.length}`,
    );
  const out = new Float32Array(CHANNELS * size * size);
  for (let y = 0; y < size; y++) {
    const [top, bottom, down] = between(y, size, height);
    for (let x = 0; x < size; x++) {
      const [left, right, along] = between(x, size, width);
      for (let c = 0; c < CHANNELS; c++) {
        const at = (row: number, column: number): number => rgb[(row * width + column) * CHANNELS + c]!;
        const upper = at(top, left) * (1 - along) + at(top, right) * along;
        const lower = at(bottom, left) * (1 - along) + at(bottom, right) * along;
        out[(c * size + y) * size + x] = ((upper * (1 - down) + lower * down) / 255 - mean[c]!) / std[c]!;
      }
    }
  }
  return out;
}

/** The two source places that a place lies between, and how far along. */
function between(place: number, size: number, sourceSize: number): [number, number, number] {
  const exact = Math.min(sourceSize - 1, Math.max(0, ((place + 0.5) * sourceSize) / size - 0.5));
  const first = Math.floor(exact);
  return [first, Math.min(sourceSize - 1, first + 1), exact - first];
}
