/** What is due for an exposure or action, and when: it follows from the state, so no task has to keep its time. */
import { orderOfAction } from '@onemall/event-time';
import { TASK_BITS, type TaskTimes } from '../state/due-tasks.ts';
import type { PartitionState } from './partition-state.ts';

/** The number is the place among tasks of the same moment. */
export const TASK = {
  decide: 0,
  emit: 1,
  close: 2,
  endAction: 3,
  forgetExposure: 4,
  forgetAction: 5,
} as const;
export type TaskKind = (typeof TASK)[keyof typeof TASK];

export const taskOf = (kind: TaskKind, slot: number): number => (slot << TASK_BITS) | kind;
export const kindOf = (task: number): TaskKind => (task & ((1 << TASK_BITS) - 1)) as TaskKind;
export const slotOf = (task: number): number => task >> TASK_BITS;

export class JoinTaskTimes implements TaskTimes {
  readonly #state: PartitionState;
  constructor(state: PartitionState) {
    this.#state = state;
  }

  atMs(task: number): number {
    const { windows, exposures, actions } = this.#state;
    const slot = slotOf(task);
    const kind = kindOf(task);
    if (kind === TASK.close || kind === TASK.forgetExposure) {
      const { of } = exposures.columns;
      const timeMs = of.timeMs[slot]!;
      return kind === TASK.close
        ? this.#state.closesAtMs(of.scenario[slot]!, timeMs)
        : timeMs + windows.knownSpanMs;
    }
    const { of } = actions.columns;
    const timeMs = of.timeMs[slot]!;
    if (kind === TASK.decide) return timeMs;
    if (kind === TASK.emit) return Math.max(timeMs, exposures.columns.of.timeMs[of.exposure[slot]!]!);
    return kind === TASK.endAction ? windows.actionEndsAtMs(timeMs) : timeMs + windows.knownSpanMs;
  }

  /** Positives leave in the order of their actions. */
  tie(task: number): number {
    if (kindOf(task) !== TASK.emit) return 0;
    const { actions } = this.#state;
    return orderOfAction(actions.kind(slotOf(task)), actions.columns.of.timeMs[slotOf(task)]!);
  }
}
