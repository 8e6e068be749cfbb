/** Files of a tiny encoder: hidden state of a token = its row + the mean row of the text's tokens, padding left out. */
import { GraphBuilder, int } from '@onemall/learning/onnx';

export const WORDS = ['[PAD]', '[UNK]', '[CLS]', '[EMB]', 'red', 'blue', 'cup', 'shoe', 'with', 'handle'];
export const DIM = 4;
export const rowOf = (id: number): number[] =>
  Array.from({ length: DIM }, (_, d) => Math.fround(Math.sin(1 + id * 3 + d)));

export function tinyEncoder(options: object = { maxTokens: 6, pooling: 'mean' }): Map<string, Uint8Array> {
  const g = new GraphBuilder({ portable: true });
  const any = [-1, -1];
  const ids = g.input('input_ids', any, 'int64');
  const mask = g.cast(g.input('attention_mask', any, 'int64'), 'float32');
  const rows = Float32Array.from(WORDS.flatMap((_, id) => rowOf(id)));
  const table = g.initializer('table', [WORDS.length, DIM], 'float32', rows);
  const hidden = g.emit('Gather', [table, ids], [-1, -1, DIM], 'float32', { axis: int(0) });
  const column = g.emit('Unsqueeze', [mask, g.int64([2])], [-1, -1, 1], 'float32');
  const sum = (x: typeof hidden, dim: number) =>
    g.emit('ReduceSum', [x, g.int64([1])], [-1, 1, dim], 'float32', { keepdims: int(1) });
  const product = g.emit('Mul', [hidden, column], [-1, -1, DIM], 'float32');
  const mean = g.emit('Div', [sum(product, DIM), sum(column, 1)], [-1, 1, DIM], 'float32');
  g.output('last_hidden_state', g.emit('Add', [hidden, mean], [-1, -1, DIM], 'float32'));
  const special = ['[PAD]', '[UNK]', '[CLS]', '[EMB]'];
  const tokenizer = {
    version: '1.0',
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: { type: 'Lowercase' },
    pre_tokenizer: { type: 'Whitespace' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '[CLS]', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '[CLS]': { id: '[CLS]', ids: [2], tokens: ['[CLS]'] } },
    },
    decoder: null,
    model: {
      type: 'WordPiece',
      vocab: Object.fromEntries(WORDS.map((word, id) => [word, id])),
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
    },
  };
  const json = (value: object): Uint8Array => Buffer.from(JSON.stringify(value));
  return new Map([
    ['model.onnx', g.encode()],
    ['tokenizer.json', json(tokenizer)],
    ['tokenizer_config.json', json({ unk_token: '[UNK]', pad_token: '[PAD]' })],
    ['encoder.json', json(options)],
  ]);
}
