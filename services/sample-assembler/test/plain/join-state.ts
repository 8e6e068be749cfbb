/** What the join of a partition keeps of each exposure and action, and what it has to do at which event time. */
import type { Buy, Click, Exposure } from '@onemall/contracts';
import type { ActionKind, CountedAction } from '@onemall/event-time';
import type { LogRecord } from './log-record.ts';
import type { HistoryEntry } from './user-histories.ts';

export interface KnownExposure {
  exposureId: string;
  userId: string;
  itemId: string;
  scenario: string;
  requestId: string;
  requestTimeMs: number;
  timeMs: number;
  offset: number;
  /** null once closed. */
  open: { exposure: Exposure; actions: CountedAction[] } | null;
  clickLeft: boolean;
  buyLeft: boolean;
}

/** A click or buy that has found no exposure yet, or names none. */
export interface Action extends CountedAction {
  record: LogRecord;
  event: Click | Buy;
  endsAtMs: number;
  /** Counted or reported. */
  done: boolean;
  /** Last touch was settled: from now on it keeps the exposure it has, or takes the first that fits. */
  decided: boolean;
  touched: KnownExposure | null;
  history: HistoryEntry;
}

export interface JoinCounts {
  late: number;
  orphans: number;
  duplicates: number;
  withoutSid: number;
  dead: number;
}

export type Task =
  | { do: 'decide' | 'endAction'; action: Action }
  | { do: 'emit'; exposure: KnownExposure; kind: ActionKind; action: CountedAction; appendTimeMs: number }
  | { do: 'close' | 'forget'; exposure: KnownExposure }
  | { do: 'forgetAction'; id: string };
/** What comes first among tasks that are due at the same time. */
export const RANK = { decide: 0, emit: 1, close: 2, endAction: 3, forget: 4, forgetAction: 4 } as const;

export const noCounts = (): JoinCounts => ({ late: 0, orphans: 0, duplicates: 0, withoutSid: 0, dead: 0 });
export const userItem = (userId: string, itemId: string): string => `${userId}\u0000${itemId}`;
export const pinKey = ({ kind, record }: Action): string => `${kind === 'CLICK' ? 'C' : 'B'}${record.offset}`;

export function push<V>(lists: Map<string, V[]>, key: string, value: V): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}

/** @returns whether it was there */
export function remove<V>(lists: Map<string, V[]>, key: string, value: V): boolean {
  const list = lists.get(key);
  const at = list?.indexOf(value) ?? -1;
  if (!list || at < 0) return false;
  if (list.length === 1) lists.delete(key);
  else list.splice(at, 1);
  return true;
}
