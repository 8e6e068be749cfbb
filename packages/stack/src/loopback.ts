/** Loopback ports and the three readiness questions. */
import { createServer, connect as tcpConnect } from 'node:net';

/** Free ports, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer();
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((s) => (s.address() as { port: number }).port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
  return ports;
}

export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Sends bytes and resolves with what `judge` makes of the answer so far; false when the peer is away or silent. */
function ask(
  port: number,
  question: Buffer,
  judge: (answer: Buffer) => boolean | undefined,
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = tcpConnect(port, '127.0.0.1');
    let answer = Buffer.alloc(0);
    socket.setTimeout(2000, () => socket.destroy());
    socket.on('connect', () => socket.write(question));
    socket.on('data', (bytes) => {
      answer = Buffer.concat([answer, bytes]);
      const verdict = judge(answer);
      if (verdict === undefined) return;
      socket.destroy();
      resolve(verdict);
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(false));
  });
}

/** A Metadata v1 request (correlation 1, client "ready", no topics); ready when the answer lists a broker. */
export function isKafkaReady(port: number): Promise<boolean> {
  const request = Buffer.concat([
    Buffer.from([0, 0, 0, 19, 0, 3, 0, 1, 0, 0, 0, 1, 0, 5]),
    Buffer.from('ready'),
    Buffer.alloc(4),
  ]);
  return ask(port, request, (answer) => (answer.length >= 12 ? answer.readInt32BE(8) > 0 : undefined));
}

/** "-LOADING" comes while Redis reads its log. */
export const isRedisReady = (port: number): Promise<boolean> =>
  ask(port, Buffer.from('PING\r\n'), (answer) => answer.toString().startsWith('+PONG'));

export async function answersOk(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(3000) })).ok;
  } catch {
    return false;
  }
}
