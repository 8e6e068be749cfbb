/** What is due for an exposure or action, and when: it follows from the state, so no task has to keep its time. */
import { orderOfAction } from '@onemall/event-time';
import { TASK_BITS, type TaskTimes } from '../state/due-tasks.ts';
import { STAGE } from '../state/known-actions.ts';
import { NONE } from '../state/known-exposures.ts';
import type { PartitionState } from './partition-state.ts';

/** The number is the place among tasks of the same moment; the last two have none, nothing leaves with them. */
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

/** What is due for a state that was read from a snapshot; what is due up to its watermark is done. */
export function eachTaskOf(
  state: PartitionState,
  emitPositives: boolean,
  schedule: (kind: TaskKind, slot: number) => void,
): void {
  const { exposures, actions } = state;
  for (let slot = 0; slot < exposures.columns.end; slot++) {
    if (!exposures.columns.isUsed(slot)) continue;
    const { isOpen, firstAction } = exposures.columns.of;
    schedule(isOpen[slot] ? TASK.close : TASK.forgetExposure, slot);
    const { nextOfExposure } = actions.columns.of;
    // Of a closed one there are none.
    for (let action = firstAction[slot]!; action !== NONE; action = nextOfExposure[action]!)
      if (emitPositives && !state.hasLeft(slot, action)) schedule(TASK.emit, action);
  }
  for (let action = 0; action < actions.columns.end; action++)
    if (actions.columns.isUsed(action)) schedule(TASK_OF_STAGE[actions.columns.of.stage[action]!]!, action);
}

/** What an action in each stage will have to do next. */
const TASK_OF_STAGE = {
  [STAGE.undecided]: TASK.decide,
  [STAGE.waiting]: TASK.endAction,
  [STAGE.ended]: TASK.forgetAction,
} as Readonly<Record<number, TaskKind>>;
