/** One record of the three logs as the plain join takes it, and what it gives. */
import type { Buy, Click, Exposure, LateEvent, TrainingSample } from '@onemall/contracts';
import type { LogTopic } from '../../src/stages/log-record.ts';

/** Why a record cannot be used; becomes a dead letter. */
export interface BadInput {
  reason: string;
  detail: string;
}

interface Source {
  partition: number;
  offset: number;
  /** Broker append time: the topics are LogAppendTime. */
  appendTimeMs: number;
  /** The original value, wire format included. */
  payload: Buffer | null;
}
export type LogRecord = Source &
  (
    | { topic: 'exposures'; event: Exposure }
    | { topic: 'clicks'; event: Click }
    | { topic: 'buys'; event: Buy }
    | { topic: LogTopic; event: null; bad: BadInput; key: Buffer | null }
  );

export type JoinOutput =
  | {
      kind: 'sample';
      sample: TrainingSample;
      /** When its cause came: append time of the action for CLICK and BUY, clock time of the watermark for FINAL. */
      causeMs: number;
    }
  | { kind: 'late'; event: LateEvent }
  | { kind: 'dead'; record: LogRecord & { event: null } };
