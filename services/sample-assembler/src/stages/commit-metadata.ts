/**
 * What a commit keeps beside the three offsets of a partition, as their metadata: the watermark, the offset from which a
 * replay must start, and the partition count (a changed count moves users to other partitions). The exposures' metadata
 * also holds last-touch decisions that a replay would not repeat.
 */
export interface CommitMetadata {
  watermarkMs: number;
  restoreOffset: number;
  numPartitions: number;
  pins: ReadonlyMap<string, number>;
}

export function formatMetadata({ watermarkMs, restoreOffset, numPartitions, pins }: CommitMetadata): string {
  const base = `${watermarkMs},${restoreOffset},${numPartitions}`;
  return pins.size === 0 ? base : `${base},${[...pins].map(([key, offset]) => `${key}=${offset}`).join(';')}`;
}

/** @throws Error naming what came, for metadata that this service did not write */
export function parseMetadata(text: string | undefined): CommitMetadata {
  const [watermarkMs, restoreOffset, numPartitions, pins] = (text ?? '').split(',');
  const meta: CommitMetadata = {
    watermarkMs: Number(watermarkMs || Number.NaN),
    restoreOffset: Number(restoreOffset || Number.NaN),
    numPartitions: Number(numPartitions || Number.NaN),
    pins: new Map(
      (pins ? pins.split(';') : []).map((pin): [string, number] => {
        const [key, offset] = pin.split('=');
        return [key!, Number(offset)];
      }),
    ),
  };
  if (
    ![meta.watermarkMs, meta.restoreOffset, meta.numPartitions, ...meta.pins.values()].every(
      Number.isSafeInteger,
    )
  )
    throw new Error(
      `Expected offset metadata "watermark,restoreOffset,numPartitions[,pins]", got ${JSON.stringify(text)}: ` +
        'the offsets of this consumer group were committed by something else; commit them anew or use another namespace',
    );
  return meta;
}
