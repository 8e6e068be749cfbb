/**
 * The life of a service as a table: state x signal -> next state and what happens.
 *
 * | state    | ready     | stop                  | stopped | failed  |
 * |----------|-----------|-----------------------|---------|---------|
 * | starting | running   | draining: drain       | -       | failed: exit 1 |
 * | running  | -         | draining: drain       | -       | failed: exit 1 |
 * | draining | -         | failed: exit 1 (a second stop, or the drain took too long) | stopped: exit 0 | failed: exit 1 |
 * | stopped, failed | - | -                     | -       | -       |
 */
export type LifecycleState = 'starting' | 'running' | 'draining' | 'stopped' | 'failed';
export type LifecycleSignal = 'ready' | 'stop' | 'stopped' | 'failed';
/** drain: take no new input, finish and commit what is under way, leave groups, close. */
export type LifecycleAction = 'none' | 'drain' | 'exit0' | 'exit1';

const stay = (state: LifecycleState): [LifecycleState, LifecycleAction] => [state, 'none'];
export const LIFECYCLE: Readonly<
  Record<LifecycleState, Readonly<Record<LifecycleSignal, readonly [LifecycleState, LifecycleAction]>>>
> = {
  starting: {
    ready: ['running', 'none'],
    stop: ['draining', 'drain'],
    stopped: stay('starting'),
    failed: ['failed', 'exit1'],
  },
  running: {
    ready: stay('running'),
    stop: ['draining', 'drain'],
    stopped: stay('running'),
    failed: ['failed', 'exit1'],
  },
  draining: {
    ready: stay('draining'),
    stop: ['failed', 'exit1'],
    stopped: ['stopped', 'exit0'],
    failed: ['failed', 'exit1'],
  },
  stopped: {
    ready: stay('stopped'),
    stop: stay('stopped'),
    stopped: stay('stopped'),
    failed: stay('stopped'),
  },
  failed: { ready: stay('failed'), stop: stay('failed'), stopped: stay('failed'), failed: stay('failed') },
};

/** Walks the table; `act` is called with what each step asks for. */
export class Lifecycle {
  #state: LifecycleState = 'starting';
  readonly #act: (action: LifecycleAction, state: LifecycleState) => void;
  constructor(act: (action: LifecycleAction, state: LifecycleState) => void) {
    this.#act = act;
  }
  get state(): LifecycleState {
    return this.#state;
  }
  signal(signal: LifecycleSignal): void {
    const [next, action] = LIFECYCLE[this.#state][signal];
    this.#state = next;
    if (action !== 'none') this.#act(action, next);
  }
}
