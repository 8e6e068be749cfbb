/** What has left the join and waits for a transaction, and what is counted about it. */
import type { LateEvent } from '@onemall/contracts';
import type { BadRecord, JoinOutputs, OtherOutput } from './log-record.ts';
import { SampleBlock } from './sample-block.ts';

export interface JoinCounts {
  late: number;
  orphans: number;
  duplicates: number;
  withoutSid: number;
  dead: number;
}
const noCounts = (): JoinCounts => ({ late: 0, orphans: 0, duplicates: 0, withoutSid: 0, dead: 0 });

export class Outbox {
  samples = new SampleBlock();
  counts = noCounts();
  #others: OtherOutput[] = [];
  #spare: SampleBlock | null = null;

  get numOutputs(): number {
    return this.samples.count + this.#others.length;
  }

  late(event: LateEvent): void {
    if (event.reason === 'LATE') this.counts.late++;
    else this.counts.orphans++;
    this.#others.push({ kind: 'late', event });
  }
  dead(record: BadRecord): void {
    this.counts.dead++;
    this.#others.push({ kind: 'dead', record });
  }

  /** Hands over what has left since the last call. */
  take(): JoinOutputs {
    const outputs = { samples: this.samples, others: this.#others };
    this.samples = this.#spare ?? new SampleBlock();
    this.#spare = null;
    this.#others = [];
    return outputs;
  }

  /** Takes back a block that nobody looks at any more: mostly before the next sample leaves, so that one is enough. */
  giveBack(block: SampleBlock): void {
    block.clear();
    if (this.samples.count === 0) this.samples = block;
    else this.#spare = block;
  }

  /** Hands over the counts since the last call. */
  takeCounts(): JoinCounts {
    const { counts } = this;
    this.counts = noCounts();
    return counts;
  }
}
