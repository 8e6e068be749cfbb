/** The vector m that is quantized, by scenario (OneMall, section 3.1.3). */
import { QuantizationError } from './vectors.ts';

/** Short video: its product's embedding and its own, side by side. A video without a known product has zeros there. */
export function videoVector(
  product: Float32Array | null,
  video: Float32Array,
  productDim: number,
): Float32Array {
  if (product && product.length !== productDim)
    throw new QuantizationError(`Products have ${productDim} numbers, this one ${product.length}`);
  const m = new Float32Array(productDim + video.length);
  if (product) m.set(product);
  m.set(video, productDim);
  return m;
}

/** The product being explained counts this many times. */
export const EXPLAINED_WEIGHT = 2;

/**
 * Live room until a tower exists: mean of the embeddings of the products on sale, the explained one weighted 2.
 * @returns null where no embedding of a sold product is known
 */
export function roomVector(
  products: readonly (Float32Array | null)[],
  explained: number,
): Float32Array | null {
  const dim = products.find((product) => product !== null)?.length;
  if (dim === undefined) return null;
  const sum = new Float64Array(dim);
  let weights = 0;
  for (let i = 0; i < products.length; i++) {
    const product = products[i];
    if (!product) continue;
    if (product.length !== dim)
      throw new QuantizationError(
        `Products of one room have embeddings of one length, got ${dim} and ${product.length}`,
      );
    const weight = i === explained ? EXPLAINED_WEIGHT : 1;
    for (let d = 0; d < dim; d++) sum[d]! += weight * product[d]!;
    weights += weight;
  }
  const mean = new Float32Array(dim);
  for (let d = 0; d < dim; d++) mean[d] = sum[d]! / weights;
  return mean;
}
