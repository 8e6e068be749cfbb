/** What `npm run inspect` makes of actions without exposureId; the rest is asked of a real log in tests/integrity. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Click } from '@onemall/contracts';
import { AttributionWindows } from '@onemall/event-time';
import type { Findings, Found } from '../inspect/collect.ts';
import { storyLines, tellStory } from '../inspect/story.ts';
import { exposure } from './owner-scene.ts';

const windows = new AttributionWindows({
  scenarios: { product_card: { clickWindowMs: 1_000, buyWindowMs: 1_000 } },
  graceMs: 100,
  outOfOrdernessMs: 50,
});

const shown = (offset: number, exposureId: string, eventTimeMs: number): Found<'exposures'> => ({
  topic: 'exposures',
  partition: 0,
  offset,
  appendTimeMs: eventTimeMs,
  value: exposure(exposureId, eventTimeMs),
});

function clicked(eventTimeMs: number, exposureId: string | null): Found<'clicks'> {
  const value: Click = { actionId: 'c1', exposureId, userId: 'u1', itemId: 'i1', eventTimeMs };
  return { topic: 'clicks', partition: 0, offset: 0, appendTimeMs: eventTimeMs, value };
}

const lateEvent = (offset: number): Found<'late-events'> => ({
  topic: 'late-events',
  partition: 0,
  offset: 0,
  appendTimeMs: 0,
  value: {
    reason: 'LATE',
    topic: 'exposures',
    partition: 0,
    offset,
    userId: 'u1',
    exposureId: null,
    actionId: null,
    eventTimeMs: 0,
    watermarkMs: 0,
    payload: Buffer.alloc(0),
  },
});

const deadLetter = (offset: number): Found<'dead-letters'> => ({
  topic: 'dead-letters',
  partition: 0,
  offset: 0,
  appendTimeMs: 0,
  value: {
    service: 'sample-assembler',
    reason: 'NOT_A_NUMBER',
    detail: '',
    topic: 'exposures',
    partition: 0,
    offset,
    appendTimeMs: 0,
    key: null,
    payload: null,
    createdMs: 0,
  },
});

/** e1 and a click 500 ms later, beside other exposures of the item. */
function findings(more: Partial<Findings>, others: Found<'exposures'>[] = []): Findings {
  const own = shown(0, 'e1', 10_000);
  const committed = { offset: 10, watermarkMs: 10_600 };
  return {
    partition: 0,
    exposures: [own],
    rivals: [own, ...others],
    actions: [clicked(10_500, null)],
    samples: [],
    late: [],
    dead: [],
    committed: { exposures: committed, clicks: committed, buys: committed },
    ...more,
  };
}
const fateOfClick = (found: Findings): string => tellStory('e1', found, windows).records.at(-1)!.fate;

test('a click without exposureId goes to the latest exposure of its item that was good, read and in time', () => {
  const later = shown(3, 'e2', 10_200);
  assert.equal(fateOfClick(findings({})), 'counted');
  assert.equal(fateOfClick(findings({}, [later])), 'elsewhere');
  assert.equal(fateOfClick(findings({ late: [lateEvent(3)] }, [later])), 'counted');
  assert.equal(fateOfClick(findings({ dead: [deadLetter(3)] }, [later])), 'counted');
  assert.equal(fateOfClick(findings({}, [{ ...later, offset: 10 }])), 'counted', 'not committed yet');
  // Of copies the first good one decides: a late one is not made up for by the next.
  const copy = shown(5, 'e2', 10_200);
  assert.equal(fateOfClick(findings({ late: [lateEvent(3)] }, [later, copy])), 'counted');
  assert.equal(fateOfClick(findings({ late: [lateEvent(5)] }, [later, copy])), 'elsewhere');
  assert.equal(fateOfClick(findings({ dead: [deadLetter(3)] }, [later, copy])), 'elsewhere');
  // So it is with the exposure that was asked for.
  assert.equal(fateOfClick(findings({ late: [lateEvent(0)] })), 'waiting');
  assert.equal(fateOfClick(findings({ late: [lateEvent(0)] }, [later])), 'elsewhere');
});

test('where an action names no exposure one line says that the sample is what counts', () => {
  const told = (found: Findings): string[] => storyLines(tellStory('e1', found, windows), null);
  const says = (lines: string[]): number =>
    lines.filter((line) => line.includes('the sample is right')).length;
  assert.equal(says(told(findings({ actions: [clicked(10_500, null), clicked(10_501, null)] }))), 1);
  assert.equal(says(told(findings({ actions: [clicked(10_500, 'e1')] }))), 0);
  assert.equal(says(told(findings({ actions: [] }))), 0);
});
