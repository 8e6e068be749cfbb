/**
 * The sockets of one kafkajs client. A request that is refused while its client closes is tried again by kafkajs, which
 * connects anew: a connection that nobody closes, and a process that never ends. After `closeWith` none is open and none is
 * opened.
 */
import type { Socket } from 'node:net';
import type { ISocketFactory } from 'kafkajs';
import { KafkaIoError } from './errors.ts';
import { openSocket } from './receiving.ts';

export class Sockets {
  readonly #open = new Set<Socket>();
  #closed = false;

  /** @throws KafkaIoError once closed */
  readonly factory: ISocketFactory = (to) => {
    if (this.#closed) throw new KafkaIoError('The client is closed');
    const socket = openSocket(to);
    this.#open.add(socket);
    socket.once('close', () => this.#open.delete(socket));
    return socket;
  };

  /** Lets the client disconnect, then ends what it did not know of. */
  async closeWith(disconnect: () => Promise<void>): Promise<void> {
    this.#closed = true;
    await disconnect();
    // As an error: kafkajs hears of nothing else, and stops its timers then.
    for (const socket of this.#open)
      if (!socket.writableEnded) socket.destroy(new KafkaIoError('The client is closed'));
  }
}
