/** The join against its slow twin, and a restored join against one that never fell. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import { forgettableBeforeMs } from '../src/stages/catalogue.ts';
import { parseMetadata } from '../src/stages/commit-metadata.ts';
import { LOG_TOPICS } from '../src/stages/log-record.ts';
import { ByteJoin } from './byte-join.ts';
import {
  ATTRIBUTION,
  appendAll,
  Driver,
  normal,
  pollTimes,
  RULES,
  testCache,
  testCatalogue,
} from './drive.ts';
import { PlainJoin } from './plain/join-partition.ts';
import type { JoinOutput } from './plain/log-record.ts';
import { referenceJoin } from './reference.ts';
import { makeTraffic } from './traffic.ts';

const START_MS = 1_700_000_000_000;
const SEED = 20_261_122;

const traffic = fc.record({
  seed: fc.integer({ min: 1, max: 1 << 30 }),
  numRequests: fc.integer({ min: 1, max: 120 }),
  requestEveryMs: fc.constantFrom(5, 40, 300),
  numUsers: fc.constantFrom(1, 4),
  copyShare: fc.constantFrom(0, 0.3),
  unnamedShare: fc.constantFrom(0, 0.5),
});
const schedule = fc.integer({ min: 1, max: 1 << 30 });

/** Sorted text of what the slow twin expects. */
function expected(arrivals: ReturnType<typeof makeTraffic>, emitPositives: boolean): string[] {
  const catalogue = testCatalogue(START_MS);
  const { samples } = referenceJoin(arrivals, ATTRIBUTION, { historyLength: 5, emitPositives, catalogue });
  return normal(
    samples.map((sample) => ({ kind: 'sample', sample: { ...sample, watermarkMs: 0 }, causeMs: 0 })),
  );
}

/** What would be committed now; the order of pins means nothing. */
const metadataOf = (driver: Driver) => {
  const { offsets, metadata } = driver.cut();
  return LOG_TOPICS.map((topic) => {
    const { pins, ...more } = parseMetadata(metadata[topic]);
    return { ...more, offset: offsets[topic], pins: [...pins].sort() };
  });
};

const samplesOf = (outputs: readonly JoinOutput[]): string[] =>
  normal(outputs.filter((output) => output.kind === 'sample'));

test('any arrival order within the bound, any poll schedule and any duplication give the samples of the slow twin', () => {
  fc.assert(
    fc.property(traffic, schedule, fc.boolean(), (options, seed, emitPositives) => {
      const arrivals = makeTraffic({ ...options, startMs: START_MS });
      const log = appendAll(arrivals);
      const driver = new Driver(log, testCatalogue(START_MS), { ...RULES, emitPositives });
      const random = new SeededRandom(seed);
      for (const atMs of pollTimes(START_MS, log.endMs, () => random.next())) driver.poll(atMs);
      const outputs = driver.take();
      assert.deepEqual(samplesOf(outputs), expected(arrivals, emitPositives));
      const reference = referenceJoin(arrivals, ATTRIBUTION, {
        historyLength: 5,
        emitPositives,
        catalogue: testCatalogue(START_MS),
      });
      const late = outputs.filter((output) => output.kind === 'late').map((output) => output.event);
      assert.deepEqual(
        late.map((event) => `${event.reason} ${event.topic} ${event.actionId}`).sort(),
        reference.orphans.map((id) => `ORPHAN ${id}`).sort(),
      );
      assert.equal(driver.join.takeCounts().duplicates, reference.duplicates);
    }),
    { numRuns: 60, seed: SEED },
  );
});

test('a crash after any cut and any number of times leaves every sample exactly once', () => {
  fc.assert(
    fc.property(traffic, schedule, fc.integer({ min: 1, max: 6 }), (options, seed, crashes) => {
      const arrivals = makeTraffic({ ...options, startMs: START_MS });
      const log = appendAll(arrivals, new Set([0, 3, 10]));
      const random = new SeededRandom(seed);
      const times = pollTimes(START_MS, log.endMs, () => random.next());
      let driver = new Driver(log, testCatalogue(START_MS), RULES);
      let committed = driver.cut();
      const durable: JoinOutput[] = [];
      for (const atMs of times) {
        driver.poll(atMs);
        if (random.next() < 0.5) {
          durable.push(...driver.take());
          committed = driver.cut();
        } else if (random.next() < crashes / times.length) driver = driver.restored(committed, atMs);
      }
      driver.poll(times.at(-1)! + 500);
      durable.push(...driver.take());
      assert.deepEqual(samplesOf(durable), expected(arrivals, true));
      assert.equal(
        durable.filter((o) => o.kind === 'dead').length,
        Math.min(3, [0, 3, 10].filter((at) => at < arrivals.length).length),
      );
    }),
    { numRuns: 60, seed: SEED },
  );
});

test('what the catalogue may forget no sample asks for again, not even after a crash', () => {
  let timesForgotten = 0;
  fc.assert(
    fc.property(traffic, schedule, (options, seed) => {
      const arrivals = makeTraffic({ ...options, startMs: START_MS });
      const log = appendAll(arrivals);
      const random = new SeededRandom(seed);
      const catalogue = testCatalogue(START_MS);
      let driver = new Driver(log, catalogue, RULES);
      let committed = driver.cut();
      const durable: JoinOutput[] = [];
      for (const atMs of pollTimes(START_MS, log.endMs, () => random.next())) {
        driver.poll(atMs);
        if (random.next() < 0.5) {
          durable.push(...driver.take());
          committed = driver.cut();
          const beforeMs = forgettableBeforeMs([driver.join.neededFromMs], 0);
          assert.ok(beforeMs !== null);
          catalogue.forgetBefore(beforeMs);
        } else if (random.next() < 0.05) driver = driver.restored(committed, atMs);
      }
      durable.push(...driver.take());
      assert.deepEqual(samplesOf(durable), expected(arrivals, true));
      if (catalogue.item('item-1', START_MS) === null) timesForgotten++;
    }),
    { numRuns: 40, seed: SEED },
  );
  assert.ok(timesForgotten > 10, `the first version of an item was forgotten ${timesForgotten} times`);
});

test('restored from any cut the join goes on as if it had never stopped, late events and all', () => {
  fc.assert(
    fc.property(traffic, schedule, fc.integer({ min: 0, max: 999 }), (options, seed, place) => {
      const arrivals = makeTraffic({ ...options, numItems: 3, startMs: START_MS, lateShare: 0.15 });
      const log = appendAll(arrivals);
      const random = new SeededRandom(seed);
      const times = pollTimes(START_MS, log.endMs, () => random.next());
      const at = Math.floor((place / 1_000) * times.length);
      // Restore offsets as exact as can be, so that nothing is right only by replaying too much.
      const running = new Driver(log, testCatalogue(START_MS), { ...RULES, recordsPerMark: 1 });
      for (const atMs of times.slice(0, at)) running.poll(atMs);
      running.take();
      const restored = running.restored(running.cut(), times[at] ?? log.endMs);
      assert.equal(restored.join.openExposures, running.join.openExposures);
      assert.equal(restored.join.waitingActions, running.join.waitingActions);
      for (const atMs of times.slice(at)) {
        // The clock of silence starts anew in the restored one, so both are told the watermark.
        running.poll(atMs);
        restored.poll(atMs);
        const watermarkMs = Math.max(running.join.watermarkMs, restored.join.watermarkMs);
        running.join.advance(watermarkMs);
        restored.join.advance(watermarkMs);
        assert.deepEqual(normal(restored.take()), normal(running.take()));
      }
    }),
    { numRuns: 200, seed: SEED },
  );
});

test('on bytes and on plain objects the join gives the same, record by record', () => {
  fc.assert(
    fc.property(traffic, schedule, fc.integer({ min: 0, max: 12 }), (options, seed, historyLength) => {
      const arrivals = makeTraffic({ ...options, numItems: 3, startMs: START_MS, lateShare: 0.15 });
      const log = appendAll(arrivals, new Set([2, 30]));
      const random = new SeededRandom(seed);
      const rules = { ...RULES, historyLength, emitPositives: seed % 3 > 0 };
      const catalogue = testCatalogue(START_MS);
      const onBytes = new ByteJoin(0, rules, catalogue, { watermarkMs: 0 }, testCache(seed % 2 ? 1 : 2_000));
      const plain = new PlainJoin(0, rules, catalogue, { watermarkMs: 0 });
      const next = { exposures: 0, clicks: 0, buys: 0 };
      let watermarkMs = START_MS;
      while (LOG_TOPICS.some((topic) => next[topic] < log.records[topic].length)) {
        const topic = random.pick(LOG_TOPICS.filter((t) => next[t] < log.records[t].length));
        const record = log.records[topic][next[topic]++]!;
        const remembered = record.event !== null && random.next() < 0.05;
        for (const join of [onBytes, plain])
          if (remembered) join.remember(record);
          else join.feed(record);
        if (random.next() < 0.3) watermarkMs += random.int(400);
        onBytes.advance(watermarkMs);
        plain.advance(watermarkMs);
        assert.deepEqual(normal(onBytes.takeOutputs(), true), normal(plain.takeOutputs(), true));
        assert.deepEqual(
          [onBytes.openExposures, onBytes.waitingActions, onBytes.neededFromMs, [...onBytes.pins()]],
          [plain.openExposures, plain.waitingActions, plain.neededFromMs, [...plain.pins()]],
        );
        assert.equal(onBytes.restoreOffset(topic, next[topic]), plain.restoreOffset(topic, next[topic]));
        if (historyLength > 0) assert.equal(onBytes.historyEvents, plain.histories.numEntries);
      }
      assert.deepEqual(onBytes.takeCounts(), plain.takeCounts());
    }),
    { numRuns: 60, seed: SEED },
  );
});

test('a snapshot of any moment, written while the join goes on, and the records since then give the join that never stopped', () => {
  fc.assert(
    fc.property(traffic, schedule, fc.integer({ min: 0, max: 999 }), (options, seed, place) => {
      const arrivals = makeTraffic({ ...options, numItems: 3, startMs: START_MS, lateShare: 0.15 });
      const log = appendAll(arrivals, new Set([5]));
      const random = new SeededRandom(seed);
      const times = pollTimes(START_MS, log.endMs, () => random.next());
      const at = Math.floor((place / 1_000) * times.length);
      const snapshotAt = Math.floor(random.next() * (at + 1));
      const writtenAt = snapshotAt + Math.floor(random.next() * (at + 1 - snapshotAt));
      const rules = { ...RULES, emitPositives: seed % 3 > 0, historyLength: seed % 2 === 0 ? 5 : 0 };
      const running = new Driver(log, testCatalogue(START_MS), rules);
      for (const atMs of times.slice(0, snapshotAt)) running.poll(atMs);
      const written = running.beginSnapshot();
      for (const atMs of times.slice(snapshotAt, writtenAt)) running.poll(atMs);
      const snapshot = written();
      for (const atMs of times.slice(writtenAt, at)) running.poll(atMs);
      running.take();
      const restored = running.restoredFrom(snapshot, running.cut(), times[at] ?? log.endMs);
      for (const atMs of times.slice(at)) {
        assert.deepEqual(
          [restored.join.openExposures, restored.join.waitingActions, restored.join.neededFromMs],
          [running.join.openExposures, running.join.waitingActions, running.join.neededFromMs],
        );
        running.poll(atMs);
        restored.poll(atMs);
        const watermarkMs = Math.max(running.join.watermarkMs, restored.join.watermarkMs);
        running.join.advance(watermarkMs);
        restored.join.advance(watermarkMs);
        assert.deepEqual(normal(restored.take()), normal(running.take()));
        assert.deepEqual(metadataOf(restored), metadataOf(running));
      }
    }),
    { numRuns: 120, seed: SEED },
  );
});
