/** A row of the log as the mapping reads it. */
import { type Mapping, type RowKind, templateColumns } from '../mapping.ts';

export interface TableRow {
  file: string;
  /** 1 is the first row of data. */
  row: number;
  values: Readonly<Record<string, unknown>>;
}

/** Why a row cannot be used. */
export class RowError extends Error {
  override name = 'RowError';
  readonly column: string;
  readonly value: unknown;
  /** @param expected what the column should hold */
  constructor(column: string, value: unknown, expected: string) {
    super(`${column}: expected ${expected}, got ${show(value)}`);
    this.column = column;
    this.value = value;
  }
}
const show = (value: unknown): string =>
  value === undefined ? 'nothing' : typeof value === 'bigint' ? `${value}` : JSON.stringify(value);

export interface ItemTexts {
  title: string;
  category: string;
  tags: string[];
  sellerId: string;
}

export interface LogRow {
  /** Place in the whole log, for stable orders. */
  seq: number;
  /** Part of the ids that the log does not give: the same at every reading. */
  id: string;
  user: string;
  session: string;
  /** Empty only where kind is ignored. */
  item: string;
  timeMs: number;
  kind: RowKind;
  priceCents: number | null;
  quantity: number;
  list: { items: string[]; pricesCents: number[] | null } | null;
  actionId: string | null;
  exposureId: string | null;
  requestId: string | null;
  position: number | null;
  watchMs: number | null;
  /** {item} is still to be filled in. */
  texts: ItemTexts;
}

/** Throws RowError. */
export type RowMapper = (row: Pick<TableRow, 'values'>, seq: number, id?: string) => LogRow;

/** @param latestMs times after this are wrong: nothing is logged before it happens */
export function rowMapper(m: Mapping, latestMs: () => number): RowMapper {
  const pattern = m.itemPattern === undefined ? undefined : new RegExp(m.itemPattern);
  const fill = template(m);
  return ({ values }, seq, id = String(seq)) => {
    const rowKind = readKind(m, values);
    const user = text(values, m.user);
    if (user === '') throw new RowError(m.user, values[m.user], 'the id of a user');
    const item = text(values, m.item);
    if (rowKind !== 'ignored' && (item === '' || pattern?.test(item) === false))
      throw new RowError(
        m.item,
        values[m.item],
        pattern ? `an item id like ${m.itemPattern}` : 'the id of an item',
      );
    const timeMs = readTime(m, values, latestMs());
    return {
      seq,
      id,
      user,
      session: m.session === undefined ? user : `${user}/${text(values, m.session)}`,
      item,
      timeMs,
      kind: rowKind,
      priceCents: m.price ? readPrice(values, m.price) : null,
      quantity: m.quantity === undefined ? 1 : Math.max(1, whole(values, m.quantity)),
      list: readList(m, values),
      actionId: optionalText(values, m.actionId),
      exposureId: optionalText(values, m.exposureId),
      requestId: optionalText(values, m.requestId),
      position: m.position === undefined ? null : whole(values, m.position),
      watchMs: m.watchMs === undefined || isEmpty(values[m.watchMs]) ? null : whole(values, m.watchMs),
      texts: fill(values),
    };
  };
}

const isEmpty = (value: unknown): boolean => value === undefined || value === null || value === '';
const text = (values: TableRow['values'], column: string): string => {
  const value = values[column];
  return isEmpty(value) ? '' : String(value).trim();
};
const optionalText = (values: TableRow['values'], column: string | undefined): string | null =>
  column === undefined ? null : text(values, column) || null;

function number(values: TableRow['values'], column: string): number {
  const value = values[column];
  const n = isEmpty(value) ? Number.NaN : Number(value);
  if (!Number.isFinite(n) || n < 0) throw new RowError(column, value, 'a number of at least 0');
  return n;
}
function whole(values: TableRow['values'], column: string): number {
  const n = number(values, column);
  if (!Number.isSafeInteger(n)) throw new RowError(column, values[column], 'a whole number');
  return n;
}

function readKind(m: Mapping, values: TableRow['values']): RowKind {
  if ('constant' in m.kind) return m.kind.constant;
  const { column, values: kinds, other } = m.kind;
  const value = text(values, column);
  const found = Object.hasOwn(kinds, value) ? kinds[value] : undefined;
  if (found) return found;
  if (other === 'ignored') return 'ignored';
  throw new RowError(column, values[column], `one of ${Object.keys(kinds).join(', ')}`);
}

/** @returns minor units; null where the cell is empty */
function readPrice(
  values: TableRow['values'],
  { column, unit }: { column: string; unit: 'minor' | 'major' },
): number | null {
  if (isEmpty(values[column])) return null;
  return toCents(number(values, column), unit);
}
const toCents = (price: number, unit: 'minor' | 'major'): number =>
  Math.round(unit === 'major' ? price * 100 : price);

function readList(m: Mapping, values: TableRow['values']): LogRow['list'] {
  if (!m.impressions || isEmpty(values[m.impressions.column])) return null;
  const { column, separator, prices } = m.impressions;
  const items = text(values, column).split(separator);
  if (items.some((id) => id === '')) throw new RowError(column, values[column], 'no empty ids in the list');
  if (!prices || isEmpty(values[prices.column])) return { items, pricesCents: null };
  const pricesCents = text(values, prices.column)
    .split(separator)
    .map((p) => (p === '' ? Number.NaN : toCents(Number(p), prices.unit)));
  if (pricesCents.length !== items.length || pricesCents.some((p) => !(p >= 0 && Number.isFinite(p))))
    throw new RowError(
      prices.column,
      values[prices.column],
      `${items.length} prices of at least 0, one per item of the list`,
    );
  return { items, pricesCents };
}

const PER_MS = { s: 1000, ms: 1, us: 0.001 } as const;

function readTime(m: Mapping, values: TableRow['values'], latestMs: number): number {
  const { column, unit, year } = m.time;
  const value = values[column];
  let ms: number;
  if (value instanceof Date) ms = value.getTime();
  else if (unit === 'iso') {
    const iso = text(values, column).replace(' ', 'T');
    // a time without zone means UTC, so that the same log gives the same times on every machine
    ms = Date.parse(/(Z|[+-]\d\d:?\d\d)$/i.test(iso) || !iso.includes('T') ? iso : `${iso}Z`);
  } else if (unit === 'month-day') {
    const [, month, day] = /^(\d{1,2})-(\d{1,2})$/.exec(text(values, column)) ?? [];
    ms = Date.UTC(year!, Number(month) - 1, Number(day));
    const date = new Date(ms);
    if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day)) ms = Number.NaN;
  } else ms = isEmpty(value) ? Number.NaN : Math.round(Number(value) * PER_MS[unit]);
  if (!Number.isFinite(ms) || ms < 0 || ms > latestMs)
    throw new RowError(column, value, `a time (${unit}) between 1970 and now`);
  return ms;
}

/** Fills columns into the item texts; {item} stays, since a list has many items. */
function template(m: Mapping): (values: TableRow['values']) => ItemTexts {
  const filler = (pattern: string): ((values: TableRow['values']) => string) => {
    const columns = templateColumns(pattern);
    if (columns.length === 0) return () => pattern;
    return (values) => columns.reduce((out, c) => out.replaceAll(`{${c}}`, text(values, c)), pattern);
  };
  const title = filler(m.items.title);
  const category = filler(m.items.category);
  const sellerId = filler(m.items.sellerId);
  const tags = m.items.tags.map(filler);
  return (values) => ({
    title: title(values),
    category: category(values),
    tags: tags.map((t) => t(values)).filter((t) => t !== ''),
    sellerId: sellerId(values),
  });
}
