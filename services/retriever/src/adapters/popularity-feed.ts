/**
 * Popularity out of the sample log itself: every replica reads all partitions outside any group, at the start from some way
 * back, so that a restart begins where the log is and all replicas order items alike.
 */
import { BadRecordError } from '@onemall/contracts';
import { type KafkaIo, type LogReader, OffsetOutOfRangeError } from '@onemall/kafka-io';
import type { Clock, Logger, StageMeter } from '@onemall/service-kit';
import { checkSample } from '../stages/check-sample.ts';
import type { Popularity } from '../state/popularity.ts';

const LONGEST_POLL_MS = 500;

export interface PopularityFeedOptions {
  kafka: KafkaIo;
  popularity: Popularity;
  clock: Clock;
  log: Logger;
  meter: StageMeter;
  stopping: AbortSignal;
  fail: (error: unknown) => void;
  scenarios: ReadonlySet<string>;
  /** Newest samples to begin with, over all partitions. */
  replaySamples: number;
  allowedClockSkewMs: number;
}

/** Goes on by itself; the gauge popularity_caught_up is 1 once what was in the log at the start has been counted. */
export async function followPopularity(options: PopularityFeedOptions): Promise<{ close(): Promise<void> }> {
  const { kafka, meter, replaySamples, fail } = options;
  const ends = await kafka.endOffsets('training-samples');
  const each = Math.ceil(replaySamples / Math.max(1, ends.length));
  const reader = await kafka.openReader();
  const waitingFor = new Map(ends.map(({ partition, offset }) => [partition, offset]));
  meter.set('popularity_caught_up', 0);
  await reader.assign(ends.map((end) => ({ ...end, offset: end.offset > each ? end.offset - each : -2 })));
  const reading = readSamples(reader, waitingFor, options).catch(fail);
  return {
    async close() {
      await reading;
      await reader.close();
    },
  };
}

async function readSamples(
  reader: LogReader,
  waitingFor: Map<number, number>,
  options: PopularityFeedOptions,
): Promise<void> {
  const { meter, stopping, log } = options;
  while (!stopping.aborted) {
    try {
      for (const fetched of await reader.poll({ maxWaitMs: LONGEST_POLL_MS, signal: stopping })) {
        for (const record of fetched.records) await count(record, options);
        const end = waitingFor.get(fetched.partition);
        if (end !== undefined && fetched.nextOffset >= end) waitingFor.delete(fetched.partition);
      }
      if (waitingFor.size === 0) meter.set('popularity_caught_up', 1);
    } catch (error) {
      if (stopping.aborted) return;
      if (!(error instanceof OffsetOutOfRangeError) || !error.at) throw error;
      const { partition } = error.at;
      log.warn(
        { err: error, partition },
        'retention was faster: popularity goes on from the earliest sample',
      );
      await reader.assign([{ topic: 'training-samples', partition, offset: -2 }]);
    }
  }
}

/** Bad samples are left out here; the sample flow buries them. */
async function count(
  record: Parameters<KafkaIo['decode']>[1],
  { kafka, popularity, clock, scenarios, allowedClockSkewMs }: PopularityFeedOptions,
): Promise<void> {
  try {
    const { value: sample } = await kafka.decode('training-samples', record);
    if (sample?.kind !== 'FINAL') return;
    checkSample(sample, { scenarios, nowMs: clock.nowMs(), allowedClockSkewMs });
    popularity.count(sample.exposure.itemId, sample.clicked, sample.exposure.eventTimeMs);
  } catch (error) {
    if (!(error instanceof BadRecordError)) throw error;
  }
}
