import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lifecycle, type LifecycleAction, type LifecycleSignal, type LifecycleState } from '../src/index.ts';

/** How to bring a new lifecycle into each state. */
const PATH_TO: Record<LifecycleState, LifecycleSignal[]> = {
  starting: [],
  running: ['ready'],
  draining: ['ready', 'stop'],
  stopped: ['ready', 'stop', 'stopped'],
  failed: ['failed'],
};

/** The table once more, by hand: from, signal, to, what is asked for. */
const ROWS: [LifecycleState, LifecycleSignal, LifecycleState, LifecycleAction][] = [
  ['starting', 'ready', 'running', 'none'],
  ['starting', 'stop', 'draining', 'drain'],
  ['starting', 'stopped', 'starting', 'none'],
  ['starting', 'failed', 'failed', 'exit1'],
  ['running', 'ready', 'running', 'none'],
  ['running', 'stop', 'draining', 'drain'],
  ['running', 'stopped', 'running', 'none'],
  ['running', 'failed', 'failed', 'exit1'],
  ['draining', 'ready', 'draining', 'none'],
  ['draining', 'stop', 'failed', 'exit1'],
  ['draining', 'stopped', 'stopped', 'exit0'],
  ['draining', 'failed', 'failed', 'exit1'],
  ['stopped', 'ready', 'stopped', 'none'],
  ['stopped', 'stop', 'stopped', 'none'],
  ['stopped', 'stopped', 'stopped', 'none'],
  ['stopped', 'failed', 'stopped', 'none'],
  ['failed', 'ready', 'failed', 'none'],
  ['failed', 'stop', 'failed', 'none'],
  ['failed', 'stopped', 'failed', 'none'],
  ['failed', 'failed', 'failed', 'none'],
];

for (const [from, signal, to, action] of ROWS)
  test(`${from} + ${signal} -> ${to}${action === 'none' ? '' : `, ${action}`}`, () => {
    const actions: LifecycleAction[] = [];
    const lifecycle = new Lifecycle((a) => actions.push(a));
    for (const s of PATH_TO[from]) lifecycle.signal(s);
    assert.equal(lifecycle.state, from);
    actions.length = 0;
    lifecycle.signal(signal);
    assert.equal(lifecycle.state, to);
    assert.deepEqual(actions, action === 'none' ? [] : [action]);
  });

test('no sequence of signals asks for two drains, or for two exits', () => {
  const signals: LifecycleSignal[] = ['ready', 'stop', 'stopped', 'failed'];
  const walk = (done: LifecycleSignal[]): void => {
    const actions: LifecycleAction[] = [];
    const lifecycle = new Lifecycle((a) => actions.push(a));
    for (const s of done) lifecycle.signal(s);
    assert.ok(actions.filter((a) => a === 'drain').length <= 1, done.join());
    assert.ok(actions.filter((a) => a === 'exit0' || a === 'exit1').length <= 1, done.join());
    if (done.length < 6) for (const s of signals) walk([...done, s]);
  };
  walk([]);
});
