import assert from 'node:assert/strict';
import { test } from 'node:test';
import avsc from 'avsc';
import { finiteCheck } from '../src/finite-numbers.ts';
import { TOPICS, type TopicName, topicType } from '../src/index.ts';

/** The floating-point numbers of a value by its schema, found the slow way: where they lie and how to change them. */
function floatsIn(schema: unknown, holder: Record<string, unknown>, key: string): (() => void)[] {
  const spoil = (): void => {
    holder[key] = Number.NaN;
  };
  const value = holder[key];
  if (schema === 'float' || schema === 'double') return [spoil];
  if (value === null || typeof schema === 'string') return [];
  if (Array.isArray(schema)) return schema.flatMap((branch) => floatsIn(branch, holder, key));
  const of = schema as {
    type: string;
    items?: unknown;
    values?: unknown;
    fields?: { name: string; type: unknown }[];
  };
  const inner = value as Record<string, unknown>;
  if (of.type === 'array' || of.type === 'map')
    return Object.keys(inner).flatMap((at) => floatsIn(of.items ?? of.values, inner, at));
  return (of.fields ?? []).flatMap((field) => floatsIn(field.type, inner, field.name));
}

test('every floating-point number of every topic is looked at', () => {
  const seen = new Map<TopicName, number>();
  for (const { name: topic } of TOPICS) {
    const type = topicType(topic);
    const check = finiteCheck(type) ?? (() => true);
    for (let round = 0; round < 5; round++) {
      const root = { value: type.random() as unknown };
      assert.ok(check(root.value), `${topic}: a sound value is refused`);
      const places = floatsIn(type.schema(), root, 'value');
      seen.set(topic, (seen.get(topic) ?? 0) + places.length);
      for (const at of places.keys()) {
        const copy = { value: type.fromBuffer(type.toBuffer(root.value)) as unknown };
        floatsIn(type.schema(), copy, 'value')[at]!();
        assert.equal(check(copy.value), false, `${topic}: NaN at place ${at} is not seen`);
      }
    }
  }
  assert.ok(seen.get('reward-batches')! > 0 && seen.get('training-samples')! > 0);
});

test('a schema without floating-point numbers costs nothing', () => {
  assert.equal(finiteCheck(avsc.Type.forSchema({ type: 'array', items: 'string' })), null);
});
