/**
 * Stands between one client and the broker and fails where it is told to: it stops the n-th request of a kind, or the
 * answer to it, makes leaders disappear, cuts connections. The bytes are the real ones; only addresses in answers are changed,
 * so that the client stays on the proxy.
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import {
  API,
  type ApiName,
  FrameCutter,
  loseLeaders,
  type RequestHead,
  redirect,
  requestHead,
} from './kafka-frames.ts';

export interface Hold {
  /** Resolves when the request or answer is held; rejects when the proxy closes before. */
  readonly held: Promise<void>;
  /** Lets it go on its way, or gives the hold up where nothing came yet. */
  release(): void;
}

interface PendingHold {
  apiKey: number;
  side: 'request' | 'answer';
  /** Matches to let pass first. */
  skip: number;
  matches(frame: Buffer): boolean;
  held(): void;
  failed(error: Error): void;
  released: Promise<void>;
}

export class KafkaProxy {
  readonly #server: Server;
  readonly #broker: { host: string; port: number };
  readonly #sockets = new Set<Socket>();
  readonly #holds = new Set<PendingHold>();
  readonly #leaderless = new Set<string>();
  readonly #numAnswers = new Map<number, number>();
  #refuses = false;

  private constructor(server: Server, broker: { host: string; port: number }) {
    this.#server = server;
    this.#broker = broker;
    server.on('connection', (client) => this.#serve(client));
  }

  /** @param brokers host:port of one broker */
  static async start(brokers: string): Promise<KafkaProxy> {
    const [host, port] = brokers.split(':');
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new KafkaProxy(server, { host: host!, port: Number(port) });
  }

  /** What the client takes for the broker. */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /**
   * Holds the next request of a kind, or the broker's answer to it (then the broker has done what was asked), and
   * everything behind it on the same connection.
   */
  hold(
    api: ApiName,
    side: 'request' | 'answer',
    options: { skip?: number; matches?: (request: Buffer) => boolean } = {},
  ): Hold {
    const held = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    held.promise.catch(() => {}); // whoever waits for it gets the error
    const pending: PendingHold = {
      apiKey: API[api],
      side,
      skip: options.skip ?? 0,
      matches: options.matches ?? (() => true),
      held: held.resolve,
      failed: held.reject,
      released: released.promise,
    };
    this.#holds.add(pending);
    return {
      held: held.promise,
      release: () => {
        this.#holds.delete(pending);
        released.resolve();
      },
    };
  }

  /** Answers of a kind that came through so far: shows that a client has asked again. */
  numAnswers(api: ApiName): number {
    return this.#numAnswers.get(API[api]) ?? 0;
  }

  /** Fetches of these physical topics fail as if their leader were gone, until `findLeaders`. */
  loseLeaders(topics: readonly string[]): void {
    for (const topic of topics) this.#leaderless.add(topic);
  }
  findLeaders(): void {
    this.#leaderless.clear();
  }

  /** Breaks every connection; new ones work unless `refuse` came before. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
  /** From now on nobody gets through: cuts, and refuses new connections until `accept`. */
  refuse(): void {
    this.#refuses = true;
    this.cut();
  }
  accept(): void {
    this.#refuses = false;
  }

  async close(): Promise<void> {
    for (const hold of this.#holds)
      hold.failed(new Error('The proxy was closed before the hold was reached'));
    this.#holds.clear();
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #serve(client: Socket): void {
    if (this.#refuses) {
      client.destroy();
      return;
    }
    const broker = connect(this.#broker.port, this.#broker.host);
    const heads = new Map<number, { head: RequestHead; hold: PendingHold | undefined }>();
    const { port } = this.#server.address() as AddressInfo;
    const towards = (to: Socket, look: (frame: Buffer) => PendingHold | undefined) => {
      const cutter = new FrameCutter();
      // One after the other: what comes behind a held frame waits with it.
      let sent: Promise<void> = Promise.resolve();
      return (bytes: Buffer): void => {
        for (const frame of cutter.push(bytes)) {
          const hold = look(frame);
          sent = sent.then(async () => {
            if (hold) {
              hold.held();
              await hold.released;
            }
            if (!to.destroyed && !to.write(frame)) await Promise.race([once(to, 'drain'), once(to, 'close')]);
          });
          sent.catch(() => {}); // a connection that broke; its other side is being closed
        }
      };
    };
    client.on(
      'data',
      towards(broker, (frame) => {
        const head = requestHead(frame);
        const hold = this.#take(head.apiKey, frame);
        heads.set(head.correlationId, { head, hold: hold?.side === 'answer' ? hold : undefined });
        return hold?.side === 'request' ? hold : undefined;
      }),
    );
    broker.on(
      'data',
      towards(client, (frame) => {
        const asked = heads.get(frame.readInt32BE(4));
        if (!asked) return undefined;
        heads.delete(frame.readInt32BE(4));
        const { apiKey } = asked.head;
        this.#numAnswers.set(apiKey, (this.#numAnswers.get(apiKey) ?? 0) + 1);
        redirect(frame, asked.head, port);
        if (apiKey === API.Fetch && this.#leaderless.size > 0)
          loseLeaders(frame, asked.head, this.#leaderless);
        return asked.hold;
      }),
    );
    for (const [socket, other] of [
      [client, broker],
      [broker, client],
    ] as const) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => {}); // told by 'close'
      socket.on('close', () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
  }

  #take(apiKey: number, request: Buffer): PendingHold | undefined {
    for (const hold of this.#holds) {
      if (hold.apiKey !== apiKey || !hold.matches(request)) continue;
      if (hold.skip-- > 0) continue;
      this.#holds.delete(hold);
      return hold;
    }
    return undefined;
  }
}
