import { connect } from 'node:net';

/** No Redis where jobs need one. */
export class RedisAwayError extends Error {
  override name = 'RedisAwayError';
}

/** What BullMQ takes as connection; commands wait while Redis is away. */
export function redisConnection(redisUrl: string): {
  url: string;
  maxRetriesPerRequest: null;
} {
  return { url: redisUrl, maxRetriesPerRequest: null };
}

/** @throws RedisAwayError in one line that says what to do */
export function requireRedis(redisUrl: string, timeoutMs = 3_000): Promise<void> {
  const { hostname, port } = new URL(redisUrl);
  const away = (why: string): RedisAwayError =>
    new RedisAwayError(
      `jobs need Redis, and ${hostname}:${port || 6379} ${why}: install redis-server and start it, or set ONEMALL_REDIS_URL. Everything but jobs runs without it.`,
    );
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port || 6379) });
    const end = (error?: Error): void => {
      socket.destroy();
      if (error) reject(error);
      else resolve();
    };
    socket.setTimeout(timeoutMs, () => end(away(`did not answer within ${timeoutMs} ms`)));
    socket.once('error', (error) =>
      end(away(`refuses connections (${(error as NodeJS.ErrnoException).code})`)),
    );
    socket.once('connect', () => socket.write('PING\r\n'));
    // Any answer is Redis: +PONG, or an error where a password is asked for, which the client brings.
    socket.once('data', (data) => end(/^[+-]/.test(data.toString()) ? undefined : away('is no Redis')));
  });
}
