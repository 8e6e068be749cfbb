/** A closed client leaves no connection behind, whatever was under way: a process with one open never ends. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { Sockets } from '../src/sockets.ts';

let server: Server;
before(async () => {
  server = createServer((socket) => void socket.on('error', () => {}));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
after(() => {
  server.close();
});
const to = (): { host: string; port: number; ssl: never; onConnect(): void } => ({
  host: '127.0.0.1',
  port: (server.address() as AddressInfo).port,
  ssl: undefined as never,
  onConnect: () => {},
});

describe('the sockets of a client', () => {
  it('are ended with an error where disconnecting left them open, and alone where it did not', async () => {
    const sockets = new Sockets();
    const left = sockets.factory(to());
    const ended = sockets.factory(to());
    await Promise.all([once(left, 'connect'), once(ended, 'connect')]);
    const errors: Error[] = [];
    left.on('error', (error) => errors.push(error));
    ended.on('error', assert.fail);
    const closed = once(left, 'close').catch(() => {});
    await sockets.closeWith(async () => void ended.end());
    await closed;
    assert.match(String(errors[0]), /closed/);
    assert.equal(left.destroyed, true);
    ended.destroy();
  });

  it('are refused from the moment that closing begins', async () => {
    const sockets = new Sockets();
    let refused: unknown;
    await sockets.closeWith(async () => {
      try {
        sockets.factory(to());
      } catch (error) {
        refused = error;
      }
    });
    assert.match(String(refused), /The client is closed/);
    assert.throws(() => sockets.factory(to()), /The client is closed/);
  });
});
