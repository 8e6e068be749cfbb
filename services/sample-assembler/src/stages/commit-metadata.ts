/**
 * What a commit keeps beside the three offsets of a partition, as their metadata: the watermark, the offset from which a
 * replay must start, and the partition count (a changed count moves users to other partitions); then the pins, last-touch
 * decisions that a replay would not repeat, as many as the three have room for.
 */
import { byTopic, LOG_TOPICS, type LogTopic } from './log-record.ts';

/** Offsets of exposures by action: C or B and the offset of the click or buy. */
export type Pins = ReadonlyMap<string, number>;

export interface CommitMetadata {
  watermarkMs: number;
  restoreOffset: number;
  numPartitions: number;
  pins: Pins;
}

/** A broker takes 4,096 bytes for each offset by default (offset.metadata.max.bytes); this leaves room for the rest. */
const MAX_PIN_BYTES = 4_000;
const RADIX = 36;

export function formatMetadata(
  { watermarkMs, restoreOffset, numPartitions }: Omit<CommitMetadata, 'pins'>,
  pinText = '',
): string {
  const base = `${watermarkMs},${restoreOffset},${numPartitions}`;
  return pinText === '' ? base : `${base},${pinText}`;
}

/** Pins as texts for the metadata of the three offsets, about 900 of them, and how many had no room. */
export function packPins(pins: Pins): { texts: Record<LogTopic, string>; numLeftOut: number } {
  const texts = byTopic(() => '');
  if (pins.size === 0) return { texts, numLeftOut: 0 };
  const sorted = [...pins].map(([key, exposure]) => ({
    kind: key[0]!,
    offset: Number(key.slice(1)),
    exposure,
  }));
  sorted.sort((a, b) => (a.kind === b.kind ? a.offset - b.offset : a.kind < b.kind ? -1 : 1));
  let numPacked = 0;
  for (const topic of LOG_TOPICS) {
    // Each text can be read by itself, so offsets count from 0 in it once more.
    let before = { kind: '', offset: 0 };
    for (; numPacked < sorted.length; numPacked++) {
      const pin = sorted[numPacked]!;
      const from = pin.kind === before.kind ? before.offset : 0;
      const text = `${pin.kind}${(pin.offset - from).toString(RADIX)}.${pin.exposure.toString(RADIX)}`;
      const joined = texts[topic] === '' ? text : `${texts[topic]};${text}`;
      if (joined.length > MAX_PIN_BYTES) break;
      texts[topic] = joined;
      before = pin;
    }
  }
  return { texts, numLeftOut: sorted.length - numPacked };
}

function unpackPins(text: string): Map<string, number> {
  const pins = new Map<string, number>();
  let before = { kind: '', offset: 0 };
  for (const pin of text.split(';')) {
    const [action, exposure] = pin.slice(1).split('.');
    const kind = pin.slice(0, 1);
    const offset = (kind === before.kind ? before.offset : 0) + Number.parseInt(action!, RADIX);
    pins.set(`${kind}${offset}`, Number.parseInt(exposure ?? '', RADIX));
    before = { kind, offset };
  }
  return pins;
}

/** @throws Error naming what came, for metadata that this service did not write */
export function parseMetadata(text: string | undefined): CommitMetadata {
  const [watermarkMs, restoreOffset, numPartitions, pins] = (text ?? '').split(',');
  const meta: CommitMetadata = {
    watermarkMs: Number(watermarkMs || Number.NaN),
    restoreOffset: Number(restoreOffset || Number.NaN),
    numPartitions: Number(numPartitions || Number.NaN),
    pins: pins ? unpackPins(pins) : new Map(),
  };
  const isWhole =
    [meta.watermarkMs, meta.restoreOffset, meta.numPartitions, ...meta.pins.values()].every(
      Number.isSafeInteger,
    ) && [...meta.pins.keys()].every((key) => /^[CB]\d+$/.test(key));
  if (!isWhole)
    throw new Error(
      `Expected offset metadata "watermark,restoreOffset,numPartitions[,pins]", got ${JSON.stringify(text)}: ` +
        'the offsets of this consumer group were committed by something else; commit them anew or use another namespace',
    );
  return meta;
}

/** The pins of a partition's three commits. */
export const allPins = (meta: Readonly<Record<LogTopic, CommitMetadata>>): Pins =>
  new Map(LOG_TOPICS.flatMap((topic) => [...meta[topic].pins]));
