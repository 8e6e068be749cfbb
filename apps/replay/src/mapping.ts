/** A mapping file: which columns of a log mean what. README.md documents every key. */
import { ConfigError, z } from '@onemall/service-kit';

const column = z.string().min(1);
export const UNIT_MS = { day: 86_400_000, hour: 3_600_000, minute: 60_000, second: 1_000 } as const;
export type Resolution = keyof typeof UNIT_MS;
const priceUnit = z.enum(['minor', 'major']);
const kind = z.enum(['exposure', 'click', 'buy', 'ignored']);
export type RowKind = z.infer<typeof kind>;

export const mappingShape = z
  .strictObject({
    name: z.string().regex(/^[a-zA-Z0-9_-]+$/, 'letters, digits, - and _ only'),
    description: z.string().optional(),
    scenario: z.string().min(1).default('product_card'),
    csv: z
      .strictObject({ delimiter: z.string().length(1).default(','), columns: z.array(column).optional() })
      .prefault({}),
    user: column,
    item: column,
    /** A regular expression; other ids are bad rows. */
    itemPattern: z.string().optional(),
    time: z.strictObject({
      column,
      unit: z.enum(['s', 'ms', 'us', 'iso', 'month-day']),
      /** For month-day. */
      year: z.number().int().min(1970).max(2100).optional(),
      /** Rows with equal times are spread over this span in the order of the file. */
      timeResolution: z.enum(['day', 'hour', 'minute', 'second']).optional(),
    }),
    kind: z.union([
      z.strictObject({ constant: kind }),
      z.strictObject({
        column,
        values: z.record(z.string(), kind),
        /** Values not listed. */
        other: z.enum(['bad', 'ignored']).default('bad'),
      }),
    ]),
    price: z.strictObject({ column, unit: priceUnit }).optional(),
    quantity: column.optional(),
    actionId: column.optional(),
    exposureId: column.optional(),
    requestId: column.optional(),
    position: column.optional(),
    watchMs: column.optional(),
    session: column.optional(),
    impressions: z
      .strictObject({
        column,
        separator: z.string().min(1),
        prices: z.strictObject({ column, unit: priceUnit }).optional(),
        /** How long before the first row of the session that follows from it a list counts as shown. */
        shownBeforeMs: z.number().int().min(0).default(1_000),
      })
      .optional(),
    synthesizeExposures: z
      .strictObject({
        negatives: z.number().int().min(0).default(4),
        shownBeforeMs: z.number().int().min(0).default(1_000),
      })
      .optional(),
    /** Texts may name columns in braces, and {item}. */
    items: z
      .strictObject({
        title: z.string().default('{item}'),
        category: z.string().default('all'),
        tags: z.array(z.string()).default([]),
        sellerId: z.string().default('unknown'),
      })
      .prefault({}),
  })
  .refine((m) => !(m.impressions && m.synthesizeExposures), {
    message: 'impressions and synthesizeExposures exclude each other: a log with lists needs no made-up ones',
  })
  .refine((m) => m.time.unit !== 'month-day' || m.time.year !== undefined, {
    message: 'time.unit month-day needs time.year',
  });
export type Mapping = z.infer<typeof mappingShape>;

/**
 * @param source named in errors
 * @throws ConfigError with one line per wrong key
 */
export function parseMapping(value: unknown, source: string): Mapping {
  const parsed = mappingShape.safeParse(value);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((i) => `  ${i.path.join('.') || '(whole file)'}: ${i.message}`);
    throw new ConfigError(`${source} is not a mapping:\n${lines.join('\n')}`);
  }
  const { itemPattern } = parsed.data;
  if (itemPattern !== undefined)
    try {
      new RegExp(itemPattern);
    } catch (cause) {
      throw new ConfigError(`${source}: itemPattern ${itemPattern} is not a regular expression`, { cause });
    }
  return parsed.data;
}

/** Columns that a text names in braces. */
export const templateColumns = (text: string): string[] =>
  [...text.matchAll(/\{([^{}]+)\}/g)].map((m) => m[1]!).filter((name) => name !== 'item');

/** Every column that the mapping reads, each once. */
export function mappedColumns(m: Mapping): string[] {
  const texts = [m.items.title, m.items.category, m.items.sellerId, ...m.items.tags];
  const columns = [
    m.user,
    m.item,
    m.time.column,
    'column' in m.kind ? m.kind.column : undefined,
    m.price?.column,
    m.quantity,
    m.actionId,
    m.exposureId,
    m.requestId,
    m.position,
    m.watchMs,
    m.session,
    m.impressions?.column,
    m.impressions?.prices?.column,
    ...texts.flatMap(templateColumns),
  ];
  return [...new Set(columns.filter((c) => c !== undefined))];
}
