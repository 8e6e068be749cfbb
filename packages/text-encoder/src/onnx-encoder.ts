/** A transformer from an ONNX file with its tokenizer, as exported for sentence embeddings. */
import { createHash } from 'node:crypto';
import { Tokenizer } from '@huggingface/tokenizers';
import { cpuSession } from '@onemall/learning/onnx';
import type { Vectors } from '@onemall/quantization';
import * as ort from 'onnxruntime-node';
import type { TextEncoder } from './text-encoder.ts';

/** Files that are no encoder, or options that do not fit them. */
export class EncoderFileError extends Error {
  override name = 'EncoderFileError';
}

/** encoder.json */
export interface OnnxEncoderOptions {
  /** Longer texts are cut. */
  maxTokens: number;
  /** mean over the tokens, the first token, or a special token put at the end (OneMall, section 3.1.2). */
  pooling: 'mean' | 'first' | 'special';
  /** The special token, for `special`. */
  specialToken?: string;
  /** Output with float32 [texts, tokens, dim]; the model's first one by default. */
  output?: string;
}

const FILES = ['model.onnx', 'tokenizer.json', 'tokenizer_config.json', 'encoder.json'] as const;
/** Texts of about one length are encoded together. */
const BATCH = 32;

export class OnnxTextEncoder implements TextEncoder {
  readonly name: string;
  readonly dim: number;
  readonly #session: ort.InferenceSession;
  readonly #tokenizer: Tokenizer;
  readonly #options: OnnxEncoderOptions;
  readonly #specialId: number | undefined;

  private constructor(
    name: string,
    dim: number,
    parts: {
      session: ort.InferenceSession;
      tokenizer: Tokenizer;
      options: OnnxEncoderOptions;
      specialId: number | undefined;
    },
  ) {
    this.name = name;
    this.dim = dim;
    this.#session = parts.session;
    this.#tokenizer = parts.tokenizer;
    this.#options = parts.options;
    this.#specialId = parts.specialId;
  }

  /**
   * @param files model.onnx, tokenizer.json, tokenizer_config.json, encoder.json
   * @throws EncoderFileError naming the file and what is wrong with it
   */
  static async load(files: ReadonlyMap<string, Uint8Array>, numThreads = 1): Promise<OnnxTextEncoder> {
    const missing = FILES.filter((file) => !files.has(file));
    if (missing.length > 0)
      throw new EncoderFileError(
        `A text encoder has ${FILES.join(', ')}; ${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} not there`,
      );
    const json = (file: string): object => {
      try {
        return JSON.parse(Buffer.from(files.get(file)!).toString('utf8')) as object;
      } catch (cause) {
        throw new EncoderFileError(`${file} is not JSON: ${(cause as Error).message}`, { cause });
      }
    };
    const options = json('encoder.json') as OnnxEncoderOptions;
    if (!(Number.isInteger(options.maxTokens) && options.maxTokens > 0))
      throw new EncoderFileError(`encoder.json: expected maxTokens of at least 1, got ${options.maxTokens}`);
    if (!['mean', 'first', 'special'].includes(options.pooling))
      throw new EncoderFileError(
        `encoder.json: expected pooling mean, first or special, got ${options.pooling}`,
      );
    const tokenizer = new Tokenizer(json('tokenizer.json'), json('tokenizer_config.json'));
    const specialId =
      options.pooling === 'special' ? tokenizer.token_to_id(options.specialToken ?? '') : undefined;
    if (options.pooling === 'special' && specialId === undefined)
      throw new EncoderFileError(`tokenizer.json has no token ${options.specialToken}`);
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(files.get('model.onnx')!, cpuSession(numThreads));
    } catch (cause) {
      throw new EncoderFileError(`model.onnx does not load: ${(cause as Error).message}`, { cause });
    }
    const hash = createHash('sha256');
    for (const file of FILES) hash.update(files.get(file)!);
    const parts = { session, tokenizer, options, specialId };
    const probe = new OnnxTextEncoder('', 0, parts);
    const { dim } = await probe.encode(['probe']);
    return new OnnxTextEncoder(`onnx-${hash.digest('hex').slice(0, 16)}`, dim, parts);
  }

  async encode(texts: readonly string[]): Promise<Vectors> {
    const tokens = texts.map((text) => this.#tokens(text));
    const order = texts.map((_, i) => i).sort((a, b) => tokens[a]!.length - tokens[b]!.length);
    let { dim } = this;
    let data = new Float32Array(texts.length * dim);
    for (let from = 0; from < order.length; from += BATCH) {
      const rows = order.slice(from, from + BATCH);
      const pooled = await this.#run(rows.map((row) => tokens[row]!));
      if (dim === 0) {
        dim = pooled[0]!.length;
        data = new Float32Array(texts.length * dim);
      }
      for (const [i, row] of rows.entries()) data.set(pooled[i]!, row * dim);
    }
    return { data, numVectors: texts.length, dim };
  }

  close(): Promise<void> {
    return this.#session.release();
  }

  #tokens(text: string): number[] {
    const { ids } = this.#tokenizer.encode(text);
    const { maxTokens } = this.#options;
    if (this.#specialId === undefined) return ids.slice(0, maxTokens);
    return [...ids.slice(0, maxTokens - 1), this.#specialId];
  }

  async #run(batch: readonly number[][]): Promise<Float32Array[]> {
    const width = Math.max(1, ...batch.map((ids) => ids.length));
    const shape = [batch.length, width];
    const ids = new BigInt64Array(batch.length * width);
    const mask = new BigInt64Array(batch.length * width);
    for (const [row, list] of batch.entries())
      for (const [at, id] of list.entries()) {
        ids[row * width + at] = BigInt(id);
        mask[row * width + at] = 1n;
      }
    const all: Record<string, BigInt64Array> = {
      input_ids: ids,
      attention_mask: mask,
      token_type_ids: new BigInt64Array(ids.length),
    };
    const feeds = Object.fromEntries(
      this.#session.inputNames.map((name) => {
        const values = all[name];
        if (!values)
          throw new EncoderFileError(
            `model.onnx asks for ${name}; an encoder is given ${Object.keys(all).join(', ')}`,
          );
        return [name, new ort.Tensor('int64', values, shape)];
      }),
    );
    const name = this.#options.output ?? this.#session.outputNames[0]!;
    const output = (await this.#session.run(feeds))[name];
    if (output?.dims.length !== 3 || !(output.data instanceof Float32Array))
      throw new EncoderFileError(
        `model.onnx: expected output ${name} as float32 [texts, tokens, dim], got ${output?.type} [${output?.dims}]`,
      );
    const hidden = output.data;
    const dim = output.dims[2]!;
    return batch.map((list, row) => {
      const at = (token: number): Float32Array =>
        hidden.subarray((row * width + token) * dim, (row * width + token + 1) * dim);
      if (this.#options.pooling === 'first') return at(0).slice();
      if (this.#options.pooling === 'special') return at(list.length - 1).slice();
      const sum = new Float32Array(dim);
      for (let token = 0; token < list.length; token++)
        for (const [d, v] of at(token).entries()) sum[d]! += v / Math.max(1, list.length);
      return sum;
    });
  }
}
