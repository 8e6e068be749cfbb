/** One record of the three logs as the join takes it, and what the join gives. */
import type { LateEvent } from '@onemall/contracts';
import { ActionFields, ExposureFields } from '../state/event-fields.ts';
import type { SampleBlock } from './sample-block.ts';

export const LOG_TOPICS = ['exposures', 'clicks', 'buys'] as const;
export type LogTopic = (typeof LOG_TOPICS)[number];

/** A good record. One object is used again for each: what outlives the next record is copied. */
export class LogEvent {
  topic: LogTopic = 'exposures';
  offset = -1;
  /** Broker append time: the topics are LogAppendTime. */
  appendTimeMs = -1;
  /** The original value, wire format included. */
  readonly payload: { bytes: Uint8Array; start: number; end: number } = {
    bytes: new Uint8Array(0),
    start: 0,
    end: 0,
  };
  /** Of an exposure. */
  readonly exposure = new ExposureFields();
  /** Number of the exposure's scenario. */
  scenario = -1;
  /** Of a click or buy. */
  readonly action = new ActionFields();

  get timeMs(): number {
    return this.topic === 'exposures' ? this.exposure.timeMs : this.action.timeMs;
  }
}

/** A record that cannot be used, and why; becomes a dead letter. */
export interface BadRecord {
  topic: LogTopic;
  partition: number;
  offset: number;
  appendTimeMs: number;
  key: Buffer | null;
  payload: Buffer | null;
  reason: string;
  detail: string;
}

/** What has left, in order of event time within samples and within the others. */
export interface JoinOutputs {
  samples: SampleBlock;
  others: OtherOutput[];
}
export type OtherOutput = { kind: 'late'; event: LateEvent } | { kind: 'dead'; record: BadRecord };

export const byTopic = <V>(of: (topic: LogTopic) => V): Record<LogTopic, V> => ({
  exposures: of('exposures'),
  clicks: of('clicks'),
  buys: of('buys'),
});
