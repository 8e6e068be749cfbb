/** Builds the record of late-events for an exposure or action that is late or an orphan. */
import type { LateEvent, LateReason } from '@onemall/contracts';
import type { ActionFields } from '../state/event-fields.ts';
import type { LogEvent } from './log-record.ts';

export function lateExposure(event: LogEvent, partition: number, watermarkMs: number): LateEvent {
  const { bytes, idAt, idLength, userAt, userLength, timeMs } = event.exposure;
  return {
    reason: 'LATE',
    topic: event.topic,
    partition,
    offset: event.offset,
    userId: text(bytes, userAt, userLength),
    exposureId: text(bytes, idAt, idLength),
    actionId: null,
    eventTimeMs: timeMs,
    watermarkMs,
    payload: payloadOf(event),
  };
}

export const lateAction = (event: LogEvent, partition: number, watermarkMs: number): LateEvent =>
  lateActionFields(event.action, 'LATE', {
    topic: event.topic,
    partition,
    offset: event.offset,
    watermarkMs,
    payload: payloadOf(event),
  });

export function lateActionFields(
  fields: ActionFields,
  reason: LateReason,
  more: Pick<LateEvent, 'topic' | 'partition' | 'offset' | 'watermarkMs' | 'payload'>,
): LateEvent {
  const { bytes, idAt, idLength, userAt, userLength, exposureAt, exposureLength, timeMs } = fields;
  return {
    reason,
    ...more,
    userId: text(bytes, userAt, userLength),
    exposureId: exposureLength < 0 ? null : text(bytes, exposureAt, exposureLength),
    actionId: text(bytes, idAt, idLength),
    eventTimeMs: timeMs,
  };
}

function payloadOf({ payload: { bytes, start, end } }: LogEvent): Buffer {
  return Buffer.from(bytes.subarray(start, end));
}

function text(bytes: Uint8Array, at: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString('utf8');
}
