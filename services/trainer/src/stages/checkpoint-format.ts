/**
 * A checkpoint as files: tensors.bin holds all tensors one after the other as little-endian float32, checkpoint.json says
 * where each lies and holds everything else that a resume needs.
 */
import type { LossGuardState } from './guard-loss.ts';

/** Where training stands after a step, apart from the model. */
export interface Progress {
  step: number;
  /** Samples in all steps. */
  samples: number;
  /** Offset of the next training-samples record by partition: the last one trained, plus one. */
  positions: [partition: number, offset: number][];
  /** Partition index whose turn is next in the round-robin. */
  cursor: number;
  /** reward-batches: the oldest group that may still be used, by partition. */
  rewardPositions: [partition: number, offset: number][];
  /** Newest last. */
  usedRequestIds: string[];
  /** How far the SID tables had been read, by topic-partition. */
  tableOffsets: Record<string, number>;
  guard: LossGuardState;
  /** Mean loss of the first steps, null before there are any. */
  lossFirst: number | null;
  /** Newest step that reward groups entered; absent before the first. */
  lastGroupStep?: number;
  /** Times that training was rolled back; absent before the first. */
  rollbacks?: number;
  /** Step from which the weight of L_RL rises from 0 again; absent where it was never rolled back. */
  rlRampFrom?: number;
}

export interface Checkpoint {
  model: string;
  scenarios: string[];
  codebookVersions: Record<string, number>;
  numCodes: Record<string, readonly [number, number, number]>;
  seed: number;
  progress: Progress;
  /** scalars of the trainer's state. */
  scalars: Record<string, number>;
  extra: unknown;
  createdMs: number;
}

interface TensorPlace {
  name: string;
  /** In float32 values. */
  offset: number;
  length: number;
}

export class CheckpointError extends Error {
  override name = 'CheckpointError';
}

const FORMAT = 1;

/** Files of a checkpoint. Tensors go in by name, so equal states give equal bytes. */
export function encodeCheckpoint(
  checkpoint: Checkpoint,
  tensors: ReadonlyMap<string, Float32Array>,
): Map<string, Uint8Array> {
  const places: TensorPlace[] = [];
  let total = 0;
  for (const name of [...tensors.keys()].sort()) {
    const { length } = tensors.get(name)!;
    places.push({ name, offset: total, length });
    total += length;
  }
  const all = new Float32Array(total);
  for (const { name, offset } of places) all.set(tensors.get(name)!, offset);
  return new Map([
    ['tensors.bin', new Uint8Array(all.buffer)],
    ['checkpoint.json', Buffer.from(JSON.stringify({ format: FORMAT, ...checkpoint, tensors: places }))],
  ]);
}

/** @throws CheckpointError naming what is missing or does not fit */
export function decodeCheckpoint(files: ReadonlyMap<string, Uint8Array>): {
  checkpoint: Checkpoint;
  tensors: Map<string, Float32Array>;
} {
  const json = files.get('checkpoint.json');
  const bytes = files.get('tensors.bin');
  if (!json || !bytes)
    throw new CheckpointError(
      `A checkpoint has checkpoint.json and tensors.bin, this one has ${[...files.keys()].join(', ') || 'no file'}`,
    );
  let parsed: Checkpoint & { format: number; tensors: TensorPlace[] };
  try {
    parsed = JSON.parse(Buffer.from(json).toString('utf8'));
  } catch (cause) {
    throw new CheckpointError(`checkpoint.json is not JSON: ${(cause as Error).message}`, { cause });
  }
  if (parsed.format !== FORMAT)
    throw new CheckpointError(`Checkpoint format is ${parsed.format}, expected ${FORMAT}`);
  const { format: _, tensors: places, ...checkpoint } = parsed;
  const aligned = new Uint8Array(bytes); // a file's Buffer may begin at any byte of its pool, where slice() leaves it
  const all = new Float32Array(aligned.buffer, 0, Math.floor(aligned.byteLength / 4));
  const tensors = new Map<string, Float32Array>();
  for (const { name, offset, length } of places) {
    if (offset + length > all.length)
      throw new CheckpointError(
        `tensors.bin ends at value ${all.length}, but ${name} reaches to ${offset + length}`,
      );
    tensors.set(name, all.slice(offset, offset + length));
  }
  return { checkpoint, tensors };
}
