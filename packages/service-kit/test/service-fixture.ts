/** A small service for service.test.ts; FIXTURE says how it behaves. */
import { loadConfig, runService } from '../src/index.ts';

const behaviour = process.env.FIXTURE ?? '';
await runService({
  name: 'fixture',
  config: () => loadConfig({}),
  start: async ({ log, meter, stopping, fail }) => {
    if (behaviour === 'fails-at-start') throw new Error('no broker answers');
    meter.recordOut(3);
    const alive = setInterval(() => {}, 1_000);
    if (behaviour === 'fails-later') setImmediate(() => fail(new Error('the disk is full')));
    stopping.addEventListener('abort', () => log.info('took no new input'));
    return {
      stop: async () => {
        if (behaviour === 'never-drains') await new Promise(() => {});
        clearInterval(alive);
        log.info('committed everything');
      },
    };
  },
  ...(behaviour === 'never-drains' && process.env.DRAIN_MS
    ? { maxDrainMs: Number(process.env.DRAIN_MS) }
    : {}),
});
