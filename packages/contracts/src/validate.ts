/**
 * What a decoded value must satisfy beyond its schema. Pure; every service that reads a topic applies the same rules,
 * so that a bad record is a dead letter with the same reason everywhere.
 */
import { BadRecordError, topicType } from './codec.ts';
import { type FiniteCheck, finiteCheck } from './finite-numbers.ts';
import type { Buy, Click, Exposure, Item, ProductChange } from './generated/types.ts';
import type { TopicName, TopicValues } from './topics.ts';

/** Characters of an id or category: samples repeat them for every event of a history and must fit into a record. */
export const MAX_ID_LENGTH = 512;

export interface ValidationRules {
  /** Names of the configured scenarios. */
  scenarios: ReadonlySet<string>;
  /** An event time may be this much later than the record's own time. */
  allowedClockSkewMs: number;
}

export interface ValidatedRecord<T extends TopicName> {
  key: string;
  /** null is a tombstone, about which there is nothing to check. */
  value: TopicValues[T] | null;
  /** Append time of LogAppendTime topics, else the producer's; negative where the record has none. */
  timestampMs: number;
}

/** @throws BadRecordError with the first rule that the record breaks */
export function validateValue<T extends TopicName>(
  topic: T,
  record: ValidatedRecord<T>,
  rules: ValidationRules,
): void {
  if (record.value === null) return;
  const { key, timestampMs } = record;
  const latestMs = timestampMs < 0 ? Number.POSITIVE_INFINITY : timestampMs + rules.allowedClockSkewMs;
  switch (topic) {
    case 'exposures':
      validateExposure(record.value as Exposure, key, latestMs, rules);
      break;
    case 'clicks':
      validateClick(record.value as Click, key, latestMs);
      break;
    case 'buys':
      validateBuy(record.value as Buy, key, latestMs);
      break;
    case 'items':
      validateItem(record.value as Item, key, latestMs, rules);
      break;
    case 'live-product-changes':
      validateProductChange(record.value as ProductChange, key, latestMs);
      break;
    case 'training-metrics':
    case 'sid-metrics':
    case 'retrieval-metrics':
      break; // a metric that could not be computed is NaN, and may span all scenarios
    default:
      if (!numbersFinite(topic, record.value)) nameNotFinite(record.value, '');
      if ('scenario' in record.value) knownScenario(record.value.scenario, rules);
  }
}

function validateExposure(v: Exposure, key: string, latestMs: number, rules: ValidationRules): void {
  usableId('exposureId', v.exposureId);
  usableId('userId', v.userId);
  usableId('itemId', v.itemId);
  usableId('requestId', v.requestId);
  keyIs('userId', v.userId, key);
  knownScenario(v.scenario, rules);
  time('eventTimeMs', v.eventTimeMs, latestMs);
  time('requestTimeMs', v.requestTimeMs, latestMs);
  atLeast(0, 'position', v.position);
  atLeast(0, 'priceCents', v.priceCents);
  if (v.watchMs !== null) atLeast(0, 'watchMs', v.watchMs);
  const { floats } = v.requestFeatures;
  for (let i = 0; i < floats.length; i++)
    if (!Number.isFinite(floats[i])) notFinite(`requestFeatures.floats[${i}]`, floats[i]);
}

function validateClick(v: Click, key: string, latestMs: number): void {
  usableId('actionId', v.actionId);
  if (v.exposureId !== null) usableId('exposureId', v.exposureId);
  usableId('userId', v.userId);
  usableId('itemId', v.itemId);
  keyIs('userId', v.userId, key);
  time('eventTimeMs', v.eventTimeMs, latestMs);
}

function validateBuy(v: Buy, key: string, latestMs: number): void {
  validateClick(v, key, latestMs);
  atLeast(0, 'priceCents', v.priceCents);
  atLeast(1, 'quantity', v.quantity);
}

function validateItem(v: Item, key: string, latestMs: number, rules: ValidationRules): void {
  usableId('itemId', v.itemId);
  keyIs('itemId', v.itemId, key);
  notTooLong('category', v.category);
  knownScenario(v.scenario, rules);
  time('validFromMs', v.validFromMs, latestMs);
  atLeast(0, 'priceCents', v.priceCents);
  if (v.embedding !== null)
    for (let i = 0; i < v.embedding.length; i++)
      if (!Number.isFinite(v.embedding[i])) notFinite(`embedding[${i}]`, v.embedding[i]);
}

function validateProductChange(v: ProductChange, key: string, latestMs: number): void {
  usableId('changeId', v.changeId);
  usableId('liveId', v.liveId);
  if (v.itemId !== null) usableId('itemId', v.itemId);
  else if (v.kind !== 'ROOM_ENDED')
    throw new BadRecordError('EMPTY_ID', `Expected an itemId for a change of kind ${v.kind}, got null`);
  keyIs('liveId', v.liveId, key);
  time('eventTimeMs', v.eventTimeMs, latestMs);
}

function usableId(field: string, id: string): void {
  if (id === '') throw new BadRecordError('EMPTY_ID', `Expected a ${field}, got an empty string`);
  notTooLong(field, id);
}

function notTooLong(field: string, text: string): void {
  if (text.length > MAX_ID_LENGTH)
    throw new BadRecordError(
      'TOO_LARGE',
      `Expected a ${field} of at most ${MAX_ID_LENGTH} characters, got ${text.length} beginning ${JSON.stringify(text.slice(0, 40))}`,
    );
}

function keyIs(field: string, id: string, key: string): void {
  if (id !== key)
    throw new BadRecordError(
      'KEY_MISMATCH',
      `Expected the record's key to be its ${field} ${JSON.stringify(id)}, got ${JSON.stringify(key)}: key and join partition follow from it`,
    );
}

function knownScenario(scenario: string, { scenarios }: ValidationRules): void {
  if (!scenarios.has(scenario))
    throw new BadRecordError(
      'UNKNOWN_SCENARIO',
      `Expected one of the configured scenarios ${[...scenarios].join(', ')}, got ${JSON.stringify(scenario)}`,
    );
}

function time(field: string, ms: number, latestMs: number): void {
  if (!(ms >= 0 && ms <= latestMs))
    throw new BadRecordError(
      'TIME_OUT_OF_RANGE',
      `Expected ${field} in [0, ${latestMs}], the record's own time and the allowed clock skew, got ${ms}`,
    );
}

function atLeast(least: number, field: string, value: number): void {
  if (!(value >= least))
    throw new BadRecordError('NEGATIVE_VALUE', `Expected ${field} of at least ${least}, got ${value}`);
}

const finiteChecks = new Map<TopicName, FiniteCheck>();

function numbersFinite(topic: TopicName, value: unknown): boolean {
  let check = finiteChecks.get(topic);
  if (!check) {
    check = finiteCheck(topicType(topic)) ?? (() => true);
    finiteChecks.set(topic, check);
  }
  return check(value);
}

function notFinite(path: string, value: unknown): never {
  throw new BadRecordError('NOT_A_NUMBER', `Expected a finite number in ${path}, got ${value}`);
}

function nameNotFinite(value: unknown, path: string): void {
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) notFinite(path, value);
  } else if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) nameNotFinite(value[i], `${path}[${i}]`);
  } else if (value !== null && typeof value === 'object' && !(value instanceof Uint8Array)) {
    for (const [name, inner] of Object.entries(value)) nameNotFinite(inner, path ? `${path}.${name}` : name);
  }
}
