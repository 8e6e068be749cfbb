import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { OutRecord, RecordWriter } from '@onemall/kafka-io';
import { ManualClock, StageMeter } from '@onemall/service-kit';
import { readMapping } from '../src/adapters/mapping-file.ts';
import type { ReplayState } from '../src/adapters/state-file.ts';
import { type PlayOptions, play } from '../src/pipeline.ts';
import { prepare } from '../src/prepare.ts';
import { NOW_MS, temporaryFolder, writeCsv } from './fixtures.ts';

/** Sleeps by moving its own time, so a replay of hours takes no time. */
class FastClock extends ManualClock {
  override async sleep(ms: number): Promise<void> {
    this.advance(ms);
  }
}

async function tmall(t: Parameters<typeof temporaryFolder>[0], rows: number) {
  const folder = await temporaryFolder(t);
  const lines = Array.from({ length: rows }, (_, i) => `u${i % 9},b${i % 101},0,${1 + (i % 5)}-4`);
  const file = await writeCsv(folder, 'log.csv', ['user_id,brand_id,type,visit_datetime', ...lines]);
  return prepare({
    files: [file],
    mapping: readMapping('tmall'),
    seed: 1,
    sortLimit: 100_000,
    folder,
    latestMs: NOW_MS,
    onBadRow: () => assert.fail('no bad rows'),
  });
}

function player(prepared: PlayOptions['prepared'], more: Partial<PlayOptions> = {}) {
  const sent: { record: OutRecord; atMs: number }[] = [];
  const clock = new FastClock(1_000_000);
  const writer: RecordWriter = {
    send: async (records) => {
      for (const record of records) {
        assert.ok('value' in record, 'the replay writes values, not bytes');
        sent.push({ record, atMs: clock.nowMs() });
      }
    },
    close: async () => undefined,
  };
  const meter = new StageMeter('replay');
  const state: ReplayState = { log: 'x', rounds: 0, sent: 0 };
  const options: PlayOptions = {
    prepared,
    writer,
    meter,
    clock,
    stopping: new AbortController().signal,
    state,
    save: () => undefined,
    rate: 200,
    speedUp: 0,
    times: 'shift',
    loop: false,
    scenario: 'product_card',
    itemsAhead: 500,
    clickWindowMs: 4_000,
    buyWindowMs: 8_000,
    ...more,
  };
  return { options, sent, meter };
}
const timeOf = (record: OutRecord): number | undefined =>
  record.topic === 'exposures' || record.topic === 'clicks' || record.topic === 'buys'
    ? (record.value as { eventTimeMs: number }).eventTimeMs
    : undefined;

test('at a rate: even, never ahead of the clock, items long before their events', async (t) => {
  const prepared = await tmall(t, 2_000);
  const { options, sent } = player(prepared);
  await play(options);
  const events = sent.filter((s) => s.record.topic !== 'items');
  assert.equal(events.length, prepared.events.count);
  const seconds = (events.at(-1)!.atMs - events[0]!.atMs) / 1000;
  assert.ok(Math.abs((seconds * 200) / events.length - 1) < 0.05, `${events.length} events in ${seconds} s`);
  for (const { record, atMs } of events) {
    const eventTimeMs = timeOf(record)!;
    assert.ok(eventTimeMs <= atMs + 1 && eventTimeMs > atMs - 200, `${atMs - eventTimeMs} ms old when sent`);
  }
  const published = new Map<string, number>();
  let index = 0;
  for (const { record } of sent) {
    if (record.topic === 'items') {
      assert.ok(!published.has(record.key), 'each item once');
      published.set(record.key, index);
      continue;
    }
    const { itemId } = record.value as { itemId: string };
    const at = published.get(itemId);
    assert.ok(at !== undefined && (at === 0 || index - at >= 400), `${itemId} at ${at}, used at ${index}`);
    index++;
  }
  await prepared.events.close();
});

test('at a speed-up with times kept: distances divided, times as in the log', async (t) => {
  const prepared = await tmall(t, 300);
  const { options, sent, meter } = player(prepared, { speedUp: 86_400, times: 'keep' });
  await play(options);
  const events = sent.filter((s) => s.record.topic !== 'items');
  const times = events.map((s) => timeOf(s.record)!);
  assert.ok(times[0]! >= Date.UTC(2014, 0, 4) - 1_000 && times.at(-1)! < Date.UTC(2014, 4, 5));
  const logSeconds = (times.at(-1)! - times[0]!) / 1000;
  const seconds = (events.at(-1)!.atMs - events[0]!.atMs) / 1000;
  assert.ok(Math.abs(seconds - logSeconds / 86_400) < 0.3);
  const { values } = meter.status('running');
  assert.equal(values.synthetic_exposures, prepared.syntheticExposures);
  assert.equal(values.actions_outside_window, undefined);
  await prepared.events.close();
});

test('it goes on from its state, and a second round has new ids and no second catalogue', async (t) => {
  const prepared = await tmall(t, 200);
  const whole = player(prepared);
  await play(whole.options);
  const half = Math.floor(prepared.events.count / 2);
  const rest = player(prepared, { state: { log: 'x', rounds: 0, sent: half } });
  await play(rest.options);
  const ids = (p: typeof whole) =>
    p.sent.flatMap(({ record }) =>
      record.topic === 'clicks' ? [(record.value as { actionId: string }).actionId] : [],
    );
  assert.equal(rest.sent.filter((s) => s.record.topic !== 'items').length, prepared.events.count - half);
  assert.deepEqual(ids(rest), ids(whole).slice(-ids(rest).length));

  const next = player(prepared, { state: { log: 'x', rounds: 1, sent: 0 } });
  await play(next.options);
  assert.deepEqual(
    ids(next),
    ids(whole).map((id) => `${id}~1`),
  );
  assert.ok(next.sent.every((s) => s.record.topic !== 'items'));
  await prepared.events.close();
});

test('actions that end up later than the window are counted', async (t) => {
  const folder = await temporaryFolder(t);
  const file = await writeCsv(folder, 'log.csv', [
    'user_id,brand_id,type,visit_datetime',
    'u,b,0,1-1',
    'u,c,1,1-2',
  ]);
  const mapping = readMapping('tmall');
  const prepared = await prepare({
    files: [file],
    mapping: { ...mapping, synthesizeExposures: { negatives: 0, shownBeforeMs: 6_000 } },
    seed: 1,
    sortLimit: 10,
    folder,
    latestMs: NOW_MS,
    onBadRow: () => undefined,
  });
  const { options, meter } = player(prepared, { speedUp: 1 });
  await play(options);
  assert.equal(meter.status('running').values.actions_outside_window, 1);
  await prepared.events.close();
});
