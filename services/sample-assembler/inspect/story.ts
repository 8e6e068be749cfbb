/** What became of one exposure and its actions, out of what the logs say. Pure. */
import { type AttributionWindows, lastTouch, type TouchCandidate } from '@onemall/event-time';
import { type Findings, type Found, place } from './collect.ts';

export type Fate = 'counted' | 'duplicate' | 'late' | 'orphan' | 'dead' | 'waiting' | 'unread' | 'elsewhere';

export interface RecordStory {
  topic: string;
  partition: number;
  offset: number;
  id: string;
  eventTimeMs: number;
  appendTimeMs: number;
  fate: Fate;
  why: string;
  /** An action that names no exposure: what it counts for is worked out here, from what lies in the log now. */
  isLastTouch: boolean;
}
export interface Story {
  exposureId: string;
  userId: string;
  itemId: string;
  scenario: string;
  records: RecordStory[];
  samples: {
    kind: string;
    partition: number;
    offset: number;
    leftAtMs: number;
    watermarkMs: number;
    clicked: boolean;
    bought: boolean;
    firstPositive: boolean;
    hasSid: boolean;
  }[];
  /** Watermark at which its FINAL leaves. */
  closesAtMs: number;
  /** As of the last commit of its partition; 0 before the first. */
  watermarkMs: number;
  state: 'unread' | 'open' | 'closed' | 'late' | 'dead';
}

export function tellStory(exposureId: string, found: Findings, windows: AttributionWindows): Story {
  const first = found.exposures[0]!;
  const { userId, itemId, scenario, eventTimeMs } = first.value;
  const knowsScenario = windows.knows(scenario);
  const closesAtMs = knowsScenario ? windows.closesAtMs(scenario, eventTimeMs) : Number.NaN;
  const { watermarkMs } = found.committed.exposures;
  const seen = new Set<string>();
  const records: RecordStory[] = [];
  for (const record of [...found.exposures, ...found.actions]) {
    const id = 'actionId' in record.value ? record.value.actionId : record.value.exposureId;
    records.push({
      topic: record.topic,
      partition: record.partition,
      offset: record.offset,
      id,
      eventTimeMs: record.value.eventTimeMs,
      appendTimeMs: record.appendTimeMs,
      ...fateOf(record, id, seen, exposureId, found, windows),
      isLastTouch: 'actionId' in record.value && record.value.exposureId === null,
    });
  }
  const own = records[0]!;
  const ends: Partial<Record<Fate, Story['state']>> = { unread: 'unread', dead: 'dead', late: 'late' };
  return {
    exposureId,
    userId,
    itemId,
    scenario,
    records,
    samples: found.samples.map(({ value, partition, offset, appendTimeMs }) => ({
      kind: value.kind,
      partition,
      offset,
      leftAtMs: appendTimeMs,
      watermarkMs: value.watermarkMs,
      clicked: value.clicked,
      bought: value.bought,
      firstPositive: value.firstPositive,
      hasSid: value.sid !== null,
    })),
    closesAtMs,
    watermarkMs,
    state: ends[own.fate] ?? (closesAtMs <= watermarkMs ? 'closed' : 'open'),
  };
}

function fateOf(
  record: Found<'exposures'> | Found<'clicks'> | Found<'buys'>,
  id: string,
  seen: Set<string>,
  exposureId: string,
  found: Findings,
  windows: AttributionWindows,
): { fate: Fate; why: string } {
  const at = place(record);
  const dead = found.dead.find((d) => place(d.value) === at);
  if (dead) return { fate: 'dead', why: `${dead.value.reason}: ${dead.value.detail}` };
  const committed = found.committed[record.topic];
  if (record.offset >= committed.offset)
    return {
      fate: 'unread',
      why: `its partition is committed up to offset ${Math.max(0, committed.offset)}`,
    };
  // The first good copy decides, also where it was reported late.
  const key = `${record.topic} ${id}`;
  const isCopy = seen.has(key);
  seen.add(key);
  const late = found.late.find((l) => place(l.value) === at);
  if (late) {
    const behindMs = late.value.watermarkMs - late.value.eventTimeMs;
    return late.value.reason === 'LATE'
      ? { fate: 'late', why: `the watermark was ${behindMs} ms past it, and its exposure had closed` }
      : { fate: 'orphan', why: `no exposure for it came until the watermark was ${behindMs} ms past it` };
  }
  if (isCopy) return { fate: 'duplicate', why: 'a copy of an earlier record' };
  if (record.topic === 'exposures') return { fate: 'counted', why: 'opened its sample' };
  return fateOfAction(record, exposureId, found, windows);
}

function fateOfAction(
  action: Found<'clicks'> | Found<'buys'>,
  exposureId: string,
  found: Findings,
  windows: AttributionWindows,
): { fate: Fate; why: string } {
  const kind = action.topic === 'clicks' ? 'CLICK' : 'BUY';
  const { value } = action;
  const shown = found.exposures[0]!.value;
  const delayMs = value.eventTimeMs - shown.eventTimeMs;
  if (value.exposureId !== null) {
    const fits =
      value.userId === shown.userId &&
      windows.contains(shown.scenario, shown.eventTimeMs, kind, value.eventTimeMs);
    if (fits) return { fate: 'counted', why: `${delayMs} ms after the exposure` };
    const why =
      value.userId === shown.userId ? `${delayMs} ms is outside its window` : 'it is of another user';
    return { fate: 'waiting', why: `${why}: it becomes an orphan when its own time is over` };
  }
  const touched = lastTouch(windows, candidates(found, windows), kind, value.eventTimeMs);
  if (!touched)
    return {
      fate: 'waiting',
      why: 'names no exposure, and none of its item that came in time has it in its window',
    };
  if (touched.exposureId === exposureId)
    return { fate: 'counted', why: `last touch: the latest exposure of the item, ${delayMs} ms before` };
  return { fate: 'elsewhere', why: `last touch: ${touched.exposureId} is the latest exposure of the item` };
}

/** Exposures that last touch can take: of each id the first good one, where it was read and in time. */
function candidates(found: Findings, windows: AttributionWindows): TouchCandidate[] {
  const dead = new Set(found.dead.map(({ value }) => place(value)));
  const late = new Set(found.late.map(({ value }) => place(value)));
  const known = new Set<string>();
  const read: TouchCandidate[] = [];
  for (const rival of found.rivals) {
    const { exposureId, scenario, eventTimeMs: timeMs } = rival.value;
    const isGood = !dead.has(place(rival)) && windows.knows(scenario);
    if (!isGood || known.has(exposureId) || rival.offset >= found.committed.exposures.offset) continue;
    known.add(exposureId);
    if (!late.has(place(rival))) read.push({ exposureId, scenario, timeMs });
  }
  return read;
}

const time = (ms: number): string => (Number.isFinite(ms) && ms > 0 ? new Date(ms).toISOString() : 'never');

/** The story as a person reads it. */
export function storyLines(story: Story, status: Record<string, number> | null): string[] {
  const lines = [
    `exposure ${story.exposureId}: ${story.state}`,
    `  user ${story.userId}, item ${story.itemId}, scenario ${story.scenario}`,
  ];
  for (const r of story.records)
    lines.push(
      `  ${r.topic} partition ${r.partition} offset ${r.offset}: ${r.id}, happened ${time(r.eventTimeMs)}, appended ${r.appendTimeMs - r.eventTimeMs} ms later`,
      `    ${r.fate}: ${r.why}`,
    );
  if (story.records.some((r) => r.isLastTouch))
    lines.push(
      '  actions without exposureId: this is last touch by what lies in the log now; where a sample in training-samples says otherwise, the sample is right',
    );
  const leftMs = story.closesAtMs - story.watermarkMs;
  lines.push(
    `  closes when the watermark is ${time(story.closesAtMs)}; as of the last commit it is ${time(story.watermarkMs)}` +
      (leftMs > 0 ? `, ${leftMs} ms before` : ''),
  );
  if (story.samples.length === 0) lines.push('  no sample has left');
  for (const s of story.samples)
    lines.push(
      `  sample ${s.kind} in training-samples partition ${s.partition} offset ${s.offset}: left ${time(s.leftAtMs)} at watermark ${time(s.watermarkMs)}; ` +
        [
          s.clicked ? 'clicked' : 'not clicked',
          s.bought ? 'bought' : 'not bought',
          ...(s.firstPositive ? ['first positive'] : []),
          ...(s.hasSid ? [] : ['without SID: not trained on']),
        ].join(', '),
    );
  lines.push(
    status
      ? `  its partition now: ${Object.entries(status)
          .map(([name, value]) => `${name} ${value}`)
          .join(', ')}`
      : '  its partition now: no instance that owns it could be asked',
  );
  return lines;
}
