/**
 * The decoder for one more token of many rows that share a context (beam search): keys and values of the earlier tokens come
 * from a cache, so that a token is computed once. Same names, same weights and same result as `decoder` (decoder.ts).
 */
import type { Ops } from '../ops.ts';
import { attend, linear, norm } from './attention.ts';
import { type DecoderSizes, whereEvents } from './decoder.ts';

/** Self-attention key and value of a token: [N, D], or [1, D] where all rows share the token. */
export interface CachedToken<T> {
  key: T;
  value: T;
}

/**
 * @param h [N, D] the new token @param context [M, D] shared by all rows, or [C, M, D], each shared by N / C rows in a row
 * @param earlier by layer, the tokens before, oldest first
 * @param experts the mixture of experts of a layer: [N, D] -> [N, D]
 * @param readable [C, M] 1 where the rows of a context may look; everything where absent
 * @returns hidden [N, D] after the last norm; the new token's own key and value by layer
 */
export function nextToken<T>(
  ops: Ops<T>,
  name: string,
  h: T,
  context: T,
  earlier: readonly (readonly CachedToken<T>[])[],
  sizes: Pick<DecoderSizes, 'layers' | 'heads' | 'residual' | 'queries'>,
  experts: (name: string, x: T) => T,
  readable?: T,
): { hidden: T; own: CachedToken<T>[] } {
  const { heads } = sizes;
  const [rows, dim] = ops.shape(h) as [number, number];
  const add = (x: T, y: T): T => (sizes.residual === 'sublayer' ? ops.add(x, y) : y);
  const own: CachedToken<T>[] = [];
  const memory = ops.shape(context).at(-2)!;
  const contexts = ops.shape(context).length === 3 ? ops.shape(context)[0]! : 1;
  const source = ops.reshape(context, [contexts * memory, dim]);
  const allowed =
    sizes.queries === 0
      ? whereEvents(ops, ops.reshape(context, [contexts, memory, dim]))
      : readable && ops.reshape(readable, [contexts, 1, 1, memory]);
  const apart = (x: T): T => ops.reshape(x, [contexts, ops.shape(x)[0]! / contexts, dim]);
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `${name}.layer${layer}`;
    const read = attend(
      ops,
      apart(linear(ops, `${at}.cross.q`, norm(ops, `${at}.normCross`, h), dim)),
      apart(linear(ops, `${at}.cross.k`, source, dim)),
      apart(linear(ops, `${at}.cross.v`, source, dim)),
      { heads, ...(allowed !== undefined && { allowed }) },
    );
    const a = add(h, linear(ops, `${at}.cross.out`, ops.reshape(read, [rows, dim]), dim));

    const x = norm(ops, `${at}.normSelf`, a);
    const token = {
      key: linear(ops, `${at}.self.k`, x, dim),
      value: linear(ops, `${at}.self.v`, x, dim),
    };
    own.push(token);
    const query = linear(ops, `${at}.self.q`, x, dim);
    const seen = attendTokens(ops, query, [...(earlier[layer] ?? []), token], heads);
    const b = add(a, linear(ops, `${at}.self.out`, seen, dim));

    const y = experts(`${at}.experts`, norm(ops, `${at}.normExperts`, b));
    h = ops.add(sizes.residual === 'sublayer' ? b : h, y);
  }
  return { hidden: norm(ops, `${name}.norm`, h), own };
}

/** softmax(q k' / sqrt(d)) v over a handful of tokens: element by element, for a row has two or three of them. */
function attendTokens<T>(ops: Ops<T>, query: T, tokens: readonly CachedToken<T>[], heads: number): T {
  const [rows, dim] = ops.shape(query) as [number, number];
  const inHeads = (x: T): T => ops.reshape(x, [ops.shape(x)[0]!, heads, dim / heads]);
  const q = inHeads(ops.scale(query, 1 / Math.sqrt(dim / heads)));
  const scores = tokens.map(({ key }) => ops.sum(ops.mul(q, inHeads(key)), [2], true));
  const weights = ops.softmax(ops.concat(scores, 2));
  const parts = tokens.map(({ value }, i) =>
    ops.mul(ops.slice(weights, [0, 0, i], [rows, heads, 1]), inHeads(value)),
  );
  return ops.reshape(
    parts.reduce((sum, part) => ops.add(sum, part)),
    [rows, dim],
  );
}
