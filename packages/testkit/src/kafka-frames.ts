/** Kafka's frames on a TCP stream, and the few fields of them that a proxy must read or change in place. */
import { WireReader } from './wire-reader.ts';

export const API = {
  Produce: 0,
  Fetch: 1,
  Metadata: 3,
  FindCoordinator: 10,
  JoinGroup: 11,
  Heartbeat: 12,
  InitProducerId: 22,
  AddPartitionsToTxn: 24,
  AddOffsetsToTxn: 25,
  EndTxn: 26,
  TxnOffsetCommit: 28,
} as const;
export type ApiName = keyof typeof API;

/** Cuts a byte stream into frames: a length of four bytes and so many bytes. */
export class FrameCutter {
  #parts: Buffer[] = [];
  #size = 0;

  /** @returns the frames that are complete now, each with its length in front */
  push(bytes: Buffer): Buffer[] {
    this.#parts.push(bytes);
    this.#size += bytes.length;
    const frames: Buffer[] = [];
    while (this.#size >= 4) {
      if (this.#parts[0]!.length < 4) this.#join();
      const length = 4 + this.#parts[0]!.readInt32BE(0);
      if (this.#size < length) break;
      if (this.#parts[0]!.length < length) this.#join();
      const first = this.#parts[0]!;
      frames.push(first.subarray(0, length));
      this.#size -= length;
      if (first.length > length) this.#parts[0] = first.subarray(length);
      else this.#parts.shift();
    }
    return frames;
  }

  #join(): void {
    this.#parts = [Buffer.concat(this.#parts)];
  }
}

export interface RequestHead {
  apiKey: number;
  apiVersion: number;
  correlationId: number;
}

export const requestHead = (frame: Buffer): RequestHead => ({
  apiKey: frame.readInt16BE(4),
  apiVersion: frame.readInt16BE(6),
  correlationId: frame.readInt32BE(8),
});

const HEAD_BYTES = 8; // length and correlation id of an answer

/** Puts the proxy's port in the place of the broker's, so that the client comes back to the proxy. */
export function redirect(answer: Buffer, { apiKey, apiVersion }: RequestHead, port: number): void {
  const at = new WireReader(answer, HEAD_BYTES);
  if (apiKey === API.Metadata) {
    if (apiVersion > 8) throw new Error(`Metadata version ${apiVersion} is not known to this proxy`);
    if (apiVersion >= 3) at.int32(); // throttle time
    const numBrokers = at.int32();
    for (let i = 0; i < numBrokers; i++) {
      at.int32(); // node id
      at.string();
      answer.writeInt32BE(port, at.position);
      at.int32();
      if (apiVersion >= 1) at.string(); // rack
    }
  } else if (apiKey === API.FindCoordinator) {
    if (apiVersion > 2) throw new Error(`FindCoordinator version ${apiVersion} is not known to this proxy`);
    if (apiVersion >= 1) at.int32(); // throttle time
    const failed = at.int16() !== 0;
    if (apiVersion >= 1) at.string(); // error message
    at.int32(); // node id
    at.string();
    if (!failed) answer.writeInt32BE(port, at.position);
  }
}

const NOT_LEADER_OR_FOLLOWER = 6;

/** Makes the partitions of these topics look as if their leader were gone. */
export function loseLeaders(answer: Buffer, { apiVersion }: RequestHead, topics: ReadonlySet<string>): void {
  if (apiVersion !== 4) return; // the group member's own fetches, which carry no records
  const at = new WireReader(answer, HEAD_BYTES);
  at.int32(); // throttle time
  for (let t = at.int32(); t > 0; t--) {
    const isLost = topics.has(at.string() ?? '');
    for (let p = at.int32(); p > 0; p--) {
      at.int32(); // partition
      if (isLost) answer.writeInt16BE(NOT_LEADER_OR_FOLLOWER, at.position);
      at.int16();
      at.skip(16); // high watermark and last stable offset
      at.skip(16 * Math.max(0, at.int32())); // aborted transactions
      at.skip(Math.max(0, at.int32())); // records
    }
  }
}
