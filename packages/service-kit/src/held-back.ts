import { hashFraction } from './random.ts';

/**
 * True for requests kept out of training, rollouts and tokenizer pairs so that models can be measured on them. Every
 * service that asks with the same fraction holds back the same requests.
 */
export const isHeldBack = (requestId: string, fraction: number): boolean =>
  hashFraction(`held-back:${requestId}`) < fraction;
