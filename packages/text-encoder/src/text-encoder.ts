import type { Vectors } from '@onemall/quantization';

/** Turns texts into vectors. Equal texts give equal vectors. */
export interface TextEncoder {
  /** Names the encoder and its weights: vectors of two encoders of one name are equal. */
  readonly name: string;
  readonly dim: number;
  /** float32 [texts, dim] */
  encode(texts: readonly string[]): Promise<Vectors>;
  close(): Promise<void>;
}
