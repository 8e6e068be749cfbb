import { loadConfig, z } from '@onemall/service-kit';

const ms = z.coerce.number().int().min(0);
const flag = z.preprocess((v) => (typeof v === 'string' ? v === 'true' : v), z.boolean());

export const updaterShape = {
  minItemsForCodebook: z.coerce
    .number()
    .int()
    .min(1)
    .default(200)
    .describe('a scenario with fewer items gets no codebook yet'),
  bootstrapQuietMs: ms
    .default(1_000)
    .describe('no new item for this long, then the first codebook is trained'),
  bootstrapMaxWaitMs: ms
    .default(10_000)
    .describe('with enough items but no quiet, the first codebook is trained after this long'),
  textEmbeddingDim: z.coerce
    .number()
    .int()
    .min(8)
    .max(4096)
    .default(64)
    .describe('length of the text embedding of items that bring none'),
  textEncoderFolder: z
    .string()
    .default('')
    .describe('folder of an ONNX text encoder for items without an embedding; hashed n-grams where empty'),
  picturesFolder: z
    .string()
    .default('')
    .describe(
      'folder of pictures, <item id>.ppm, that the image encoder beside the text encoder embeds; none where empty',
    ),
  lastLevel: z.enum(['kmeans', 'fsq']).default('fsq').describe('third level of new codebooks'),
  maxTrainingVectors: z.coerce.number().int().min(1).default(50_000),
  followNewCodebooks: flag
    .default(true)
    .describe('also serve codebook versions above the lowest one, so that a fork of the trainer can switch'),
  acceptLostChanges: flag
    .default(false)
    .describe('start at the oldest retained product change where the committed one is gone'),
  debounceMs: ms.default(25).describe('a room is recomputed after this long without a change of it'),
  maxDebounceMs: ms.default(100).describe('and at the latest after this long'),
  flapHoldMs: ms
    .default(2_000)
    .describe('a room goes back to the SID it has left only after this long; 0: at once'),
  itemsPerTurn: z.coerce
    .number()
    .int()
    .min(1)
    .default(512)
    .describe('items encoded before rooms are served again'),
  sidMetricsEveryMs: ms.default(5_000),
  catalogueMetricsEveryMs: ms.default(60_000).describe('conflict, usage and entropy over all items'),
};

export const updaterConfig = () => loadConfig(updaterShape);
export type UpdaterConfig = ReturnType<typeof updaterConfig>;
