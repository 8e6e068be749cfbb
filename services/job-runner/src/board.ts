/** Bull Board: a web page with the queue, its jobs, their progress and errors. */
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { FastifyAdapter } from '@bull-board/fastify';
import Fastify from 'fastify';
import { openQueue } from './adapters/queue.ts';
import { requireRedis } from './adapters/redis.ts';
import { readConfig } from './config.ts';

const config = readConfig();
await requireRedis(config.redisUrl).catch((error: Error) => {
  console.error(`board: ${error.message}`);
  process.exit(2);
});
const queue = openQueue(config);
const serverAdapter = new FastifyAdapter();
createBullBoard({ queues: [new BullMQAdapter(queue)], serverAdapter });
serverAdapter.setBasePath('/');
const app = Fastify();
await app.register(serverAdapter.registerPlugin());
const address = await app.listen({ host: config.boardHost, port: config.boardPort });
console.log(`onemall-listening ${address}`);
const stop = async (): Promise<void> => {
  await app.close();
  await queue.close();
  process.exit(0);
};
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
