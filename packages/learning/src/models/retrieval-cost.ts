/** Parameters and operations of a preset of the retrieval model. */

import { linear } from '../layers/attention.ts';
import { decoder, tokensIn } from '../layers/decoder.ts';
import { CountingOps } from './count-operations.ts';
import { expertSlots, type RetrievalSizes, retrievalPass, userContext } from './onemall.ts';

export interface RetrievalCost {
  /** Of the whole model with its embedding tables. */
  parameters: number;
  /** Of the decoder's layers: attention and feed-forward networks. */
  decoderParameters: number;
  /** The same with only the experts that see a token. */
  activeDecoderParameters: number;
  /** Elements of the context that a token reads. */
  contextLength: number;
  /** Floating-point operations of matrix products for one sample, forward. */
  forwardFlops: number;
}

/** BOS and three codes. */
const TOKENS = 4;
/** Experts hold whole slots: over this many samples the rounding vanishes. */
const ROWS = 64;

/** Without queries in the preset, of the decoder that reads every event of the histories (paper, table 6). */
export function retrievalCost(sizes: RetrievalSizes): RetrievalCost {
  const { preset, layout } = sizes;
  const { dim, layers, ffnDim, experts, activeExperts } = preset;
  const whole = new CountingOps();
  retrievalPass(whole, sizes);

  const ops = new CountingOps();
  const context = userContext(ops, sizes, ROWS);
  const block = { contexts: ROWS, rows: 1, tokens: TOKENS };
  const tokens = tokensIn(block);
  const present = { shape: [tokens, 1] };
  const { hidden } = decoder(ops, 'decoder', { shape: [tokens, dim] }, context, present, [block], {
    ...preset,
    slots: expertSlots(preset, tokens),
    precedence: 0,
  });
  for (const level of [0, 1, 2])
    linear(ops, `head.level${level + 1}`, { shape: [hidden.shape[0]! / TOKENS, dim] }, layout.rows[level]!);

  const layer = (used: number): number => 8 * dim * dim + used * 2 * dim * ffnDim;
  return {
    parameters: whole.parameterCount,
    decoderParameters: layers * layer(experts),
    activeDecoderParameters: layers * layer(activeExperts),
    contextLength: context.shape[1]!,
    forwardFlops: ops.flops / ROWS,
  };
}
