/** The samples of the log against the assembler's own join of the same records. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TrainingSample } from '@onemall/contracts';
import { AttributionWindows } from '@onemall/event-time';
import { Catalogue } from '@onemall/sample-assembler/src/stages/catalogue.ts';
import type { LogTopic } from '@onemall/sample-assembler/src/stages/log-record.ts';
import { PlainJoin } from '@onemall/sample-assembler/test/plain/join-partition.ts';
import type { LogRecord } from '@onemall/sample-assembler/test/plain/log-record.ts';
import { isHeldBack } from '@onemall/service-kit';
import { IN_ORDER, World, type WorldRecord } from '@onemall/simulator/world';
import { WorldLog } from '../../src/world/log/world-log.ts';
import {
  finalsBefore,
  positivesBefore,
  type SidAsOf,
  trainingSample,
} from '../../src/world/samples/training-samples.ts';
import { smallPlan } from './small-plan.ts';

const HISTORY = 7;
const plan = smallPlan();

/** Every sample that the assembler makes of the same world, by exposure and kind. */
function joined(untilMs: number): Map<string, TrainingSample> {
  const { seed, startMs, eventsPerS, scenarios, spec } = plan;
  const world = new World(spec, {
    seed,
    run: 0,
    runId: 'e',
    startMs,
    eventsPerS,
    scenarios,
    disorder: IN_ORDER,
  });
  const catalogue = new Catalogue();
  const windows = new AttributionWindows({ scenarios, graceMs: 0, outOfOrdernessMs: 0 });
  const rules = { windows, historyLength: HISTORY, emitPositives: true };
  const join = new PlainJoin(0, rules, catalogue, { watermarkMs: 0 });
  const selling = new Map<string, string[]>();
  const offsets: Record<LogTopic, number> = { exposures: 0, clicks: 0, buys: 0 };
  const take = (record: WorldRecord): void => {
    const { topic, key, value } = record;
    if (topic === 'items') catalogue.putItem(key, value, value.validFromMs);
    else if (topic === 'live-product-changes') {
      const { kind, itemId, eventTimeMs } = value;
      const now = selling.get(key) ?? [];
      if (kind === 'ROOM_ENDED') {
        catalogue.putLiveSid(`${key}:1`, null, eventTimeMs);
        return;
      }
      if (kind === 'ADDED') now.push(itemId!);
      if (kind === 'REMOVED') now.splice(now.indexOf(itemId!), 1);
      selling.set(key, now);
      catalogue.putLiveSid(
        `${key}:1`,
        {
          liveId: key,
          sid: { scenario: 'live_stream', codebookVersion: 1, c1: now.length, c2: 0, c3: 0 },
          validFromMs: eventTimeMs,
          reason: 'PRODUCT_CHANGE',
          sellingItemIds: [...now],
          explainingItemId: null,
          sourcePartition: 0,
          sourceOffset: 0,
          createdMs: 0,
        },
        eventTimeMs,
      );
    } else {
      const source = {
        partition: 0,
        offset: offsets[topic]++,
        appendTimeMs: value.eventTimeMs,
        payload: null,
      };
      join.feed({ ...source, topic, event: value } as LogRecord);
    }
  };
  for (const item of world.items(startMs)) {
    catalogue.putItem(item.itemId, item, item.validFromMs);
    const sid = { scenario: item.scenario, codebookVersion: 1, c1: 0, c2: 0, c3: 0 };
    catalogue.putItemSid(
      `${item.itemId}:1`,
      { itemId: item.itemId, sid, validFromMs: 0, reason: 'NEW_ITEM', createdMs: 0 },
      startMs,
    );
  }
  for (const record of world.openRooms(startMs)) take(record);
  while (world.nextAtMs() < untilMs) {
    const atMs = world.nextAtMs();
    take(world.next());
    // the watermark of an orderly log is the time of its newest record
    join.advance(Math.floor(atMs) - 1);
  }
  join.advance(untilMs);
  const samples = new Map<string, TrainingSample>();
  for (const output of join.takeOutputs()) {
    assert.equal(output.kind, 'sample');
    if (output.kind === 'sample')
      samples.set(`${output.sample.exposure.exposureId} ${output.sample.kind}`, output.sample);
  }
  return samples;
}

test('the log gives the samples that the join gives: labels, histories, items, SIDs and watermarks', () => {
  const log = new WorldLog(plan);
  while (log.numExposures < plan.trainExposures) log.nextRequest();
  const cutMs = log.requests.timeMs.at(log.numRequests - 1);
  const sidAsOf: SidAsOf = (item, timeMs) => ({
    scenario: log.scenarioOf(item),
    codebookVersion: 1,
    c1: log.sellingItemIds(item, timeMs).length,
    c2: 0,
    c3: 0,
  });
  const expected = joined(cutMs);
  const options = { historyLength: HISTORY, sidAsOf };
  const positives = positivesBefore(log, cutMs);
  const finals = finalsBefore(log, cutMs);
  assert.ok(positives.length > 800 && finals.length > 1_000, `${positives.length}, ${finals.length}`);
  let bought = 0;
  const compared = new Set<string>();
  const compare = (row: number, kind: 'CLICK' | 'BUY' | 'FINAL'): void => {
    const sample = trainingSample(log, row, kind, options);
    const key = `${sample.exposure.exposureId} ${kind}`;
    assert.deepEqual(sample, expected.get(key), key);
    compared.add(key);
    if (sample.bought) bought++;
  };
  let lastMs = 0;
  for (const row of positives) {
    compare(row, 'CLICK');
    const ms = log.exposures.clickMs.at(row);
    assert.ok(ms >= lastMs, 'in order of leaving');
    lastMs = ms;
    const buyMs = log.exposures.buyMs.at(row);
    if (buyMs > 0 && buyMs < cutMs) compare(row, 'BUY');
  }
  for (const row of finals) compare(row, 'FINAL');
  assert.ok(bought > 50, `${bought} bought`);
  // nothing is missing: every sample of a request that is not held back, up to the moment of the cut itself
  for (const [key, sample] of expected)
    if (!compared.has(key) && sample.watermarkMs < cutMs)
      assert.ok(isHeldBack(sample.exposure.requestId, plan.heldBackFraction), `${key} is missing`);
});

test('a history holds what happened before its request and never its own page', () => {
  const log = new WorldLog(plan);
  while (log.numExposures < 3_000) log.nextRequest();
  for (let request = 0; request < log.numRequests; request++) {
    const timeMs = log.requests.timeMs.at(request);
    const { exposures, clicks } = log.historyBefore(request, 500);
    assert.ok([...exposures, ...clicks].every((e) => e.eventTimeMs < timeMs));
    assert.ok(exposures.every((e, i) => i === 0 || e.eventTimeMs <= exposures[i - 1]!.eventTimeMs));
  }
});
