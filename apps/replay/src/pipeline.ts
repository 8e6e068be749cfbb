/**
 * consumes        CSV and Parquet files
 * produces        items ahead of their first use; exposures, clicks, buys
 * waits for       the clock, and the broker's answer to each send
 * is unblocked by the time of the next event
 * commits when    a batch is durable: then the state file holds the number of events sent (at least once; ids repeat)
 */
import type { OutRecord, RecordWriter } from '@onemall/kafka-io';
import type { Clock, StageMeter } from '@onemall/service-kit';
import type { ReplayState } from './adapters/state-file.ts';
import { ItemsAhead } from './items-ahead.ts';
import type { Prepared } from './prepare.ts';
import type { LogEvent } from './stages/events.ts';
import { fixedTimeline, rateTimeline, type Timeline } from './stages/timeline.ts';

const BATCH_MS = 100;
const BATCH_RECORDS = 2_000;
const IDLE_MS = 10;

export interface PlayOptions {
  prepared: Prepared;
  writer: RecordWriter;
  meter: StageMeter;
  clock: Clock;
  stopping: AbortSignal;
  state: ReplayState;
  save: (state: ReplayState) => void;
  rate: number;
  /** Above 0 it takes the place of `rate`. */
  speedUp: number;
  times: 'shift' | 'keep';
  loop: boolean;
  scenario: string;
  itemsAhead: number;
  clickWindowMs: number;
  buyWindowMs: number;
}

/** Sends the log once, or round after round. Resolves at its end or when stopped, with everything sent durable. */
export async function play(options: PlayOptions): Promise<void> {
  const { prepared, speedUp, rate, state, stopping } = options;
  const { sampler } = prepared;
  const timeline = speedUp > 0 ? fixedTimeline(sampler.times[0] ?? 0, speedUp) : rateTimeline(sampler, rate);
  do {
    await playRound(options, timeline);
    if (stopping.aborted) return;
    state.rounds++;
    state.sent = 0;
    options.save(state);
  } while (options.loop && sampler.count > 0);
}

async function playRound(options: PlayOptions, timeline: Timeline): Promise<void> {
  const { prepared, writer, meter, clock, stopping, state } = options;
  let position = 0;
  const items = new ItemsAhead({
    ...options,
    events: prepared.events,
    from: state.rounds === 0 ? state.sent : Infinity,
  });
  await items.publishUpTo(state.sent);
  /** Clock time of offset 0: such that the first event of this start is due now. */
  let zeroMs: number | undefined;
  let batch: OutRecord[] = [];
  let batchFromMs = 0;
  const send = async (): Promise<void> => {
    if (batch.length === 0) return;
    const startMs = clock.nowMs();
    await writer.send(batch);
    meter.recordOut(batch.length);
    meter.recordLatency(clock.nowMs() - startMs);
    state.sent = position;
    options.save(state);
    batch = [];
  };
  const warp = (timeMs: number): number => zeroMs! + timeline.offsetMs(timeMs);

  try {
    for await (const events of prepared.events.sorted()) {
      for (const event of events) {
        if (stopping.aborted) break;
        if (position < state.sent) {
          position++;
          continue;
        }
        if (items.isDue(position)) {
          await send();
          await items.publishUpTo(position);
        }
        zeroMs ??= clock.nowMs() - timeline.offsetMs(event.timeMs);
        const dueMs = warp(event.timeMs);
        if (batch.length >= BATCH_RECORDS || dueMs - batchFromMs > BATCH_MS) await send();
        while (clock.nowMs() < dueMs && !stopping.aborted) {
          await send();
          const waitMs = Math.max(IDLE_MS, dueMs - clock.nowMs());
          await clock.sleep(waitMs, stopping).catch(() => undefined);
        }
        if (stopping.aborted) break;
        if (batch.length === 0) batchFromMs = dueMs;
        batch.push(toRecord(event, options, warp));
        position++;
        count(event, options, warp);
      }
      if (stopping.aborted) break;
    }
    await send();
  } finally {
    await items.close();
  }
}

/** The event as it goes out: its times moved where asked, its ids marked by the round. */
function toRecord(event: LogEvent, options: PlayOptions, warp: (timeMs: number) => number): OutRecord {
  const at = (timeMs: number): number => (options.times === 'shift' ? Math.round(warp(timeMs)) : timeMs);
  const round = options.state.rounds;
  const id = <I extends string | null>(text: I): I =>
    (round === 0 || text === null ? text : `${text}~${round}`) as I;
  const eventTimeMs = at(event.timeMs);
  const key = event.value.userId;
  if (event.topic === 'exposures') {
    const { value } = event;
    return {
      topic: 'exposures',
      key,
      value: {
        ...value,
        exposureId: id(value.exposureId),
        requestId: id(value.requestId),
        eventTimeMs,
        requestTimeMs: at(value.requestTimeMs),
      },
    };
  }
  const ids = { actionId: id(event.value.actionId), exposureId: id(event.value.exposureId), eventTimeMs };
  return event.topic === 'clicks'
    ? { topic: 'clicks', key, value: { ...event.value, ...ids } }
    : { topic: 'buys', key, value: { ...event.value, ...ids } };
}

function count(event: LogEvent, options: PlayOptions, warp: (timeMs: number) => number): void {
  const { meter } = options;
  if (event.topic === 'exposures') {
    meter.add('events_exposures');
    if (event.synthetic) meter.add('synthetic_exposures', 1, 'Exposures made up for logs that have none');
    if (event.synthetic === 'negative')
      meter.add('synthetic_negatives', 1, 'Made-up exposures without action');
    return;
  }
  meter.add(event.topic === 'clicks' ? 'events_clicks' : 'events_buys');
  if (event.shownMs === null) return;
  const delayMs =
    options.times === 'shift' ? warp(event.timeMs) - warp(event.shownMs) : event.timeMs - event.shownMs;
  const windowMs = event.topic === 'clicks' ? options.clickWindowMs : options.buyWindowMs;
  if (delayMs > windowMs)
    meter.add('actions_outside_window', 1, 'Clicks and buys later after their exposure than the window');
}
