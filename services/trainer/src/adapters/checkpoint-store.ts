/**
 * Checkpoints in the artifact store, as `checkpoints/<model>/<step>-<sha256>`: the hash in the name is checked when the
 * checkpoint is read, and a step that is trained a second time after a fall back never meets its own older files.
 */
import { type ArtifactRef, type ArtifactStore, artifactSha256, type Logger } from '@onemall/service-kit';
import type { LearnerState } from '../learner.ts';
import {
  type Checkpoint,
  CheckpointError,
  decodeCheckpoint,
  encodeCheckpoint,
  type Progress,
} from '../stages/checkpoint-format.ts';

export interface StoredCheckpoint extends ArtifactRef {
  step: number;
}

/** Ten digits sort like numbers. */
export const stepName = (step: number): string => String(step).padStart(10, '0');

export class CheckpointStore {
  readonly #artifacts: ArtifactStore;
  readonly #folder: string;
  readonly #keep: number;
  readonly #log: Logger;

  /** Step of the policy in use: its checkpoint stays however old it is, for it is the one to roll back to. */
  stepInUse: number | null = null;
  /** Step of the policy that was given to the gate last: it may be in use by the time that newer checkpoints have come. */
  stepJudged: number | null = null;

  /** @param lineage the model, or the name of a fork of it (lineages.ts) */
  constructor(artifacts: ArtifactStore, lineage: string, keep: number, log: Logger) {
    this.#artifacts = artifacts;
    this.#folder = `checkpoints/${lineage}`;
    this.#keep = keep;
    this.#log = log;
  }

  /** Durable when it resolves; then the oldest beyond `keep` are removed. */
  async save(
    checkpoint: Omit<Checkpoint, 'scalars' | 'extra'>,
    { trainer, extra }: LearnerState,
  ): Promise<StoredCheckpoint> {
    const files = encodeCheckpoint({ ...checkpoint, scalars: trainer.scalars, extra }, trainer.tensors);
    const { step } = checkpoint.progress;
    const ref = await this.#artifacts.put(
      `${this.#folder}/${stepName(step)}-${artifactSha256(files)}`,
      files,
    );
    const all = await this.list();
    for (const old of all.slice(this.#keep))
      if (old.step !== this.stepInUse && old.step !== this.stepJudged) await this.#artifacts.remove(old.uri);
    return { ...ref, step };
  }

  /**
   * Makes the checkpoint of the policy in use, with another progress, the newest one; those after it are removed. A crash in
   * between leaves the newer ones, and the gate refuses them again.
   * @returns null when that checkpoint is not kept any more
   */
  async rollBack(change: (progress: Progress) => Progress): Promise<StoredCheckpoint | null> {
    const all = await this.list();
    const accepted = all.find((stored) => stored.step === this.stepInUse);
    if (!accepted) return null;
    const { checkpoint, tensors } = decodeCheckpoint(await this.#artifacts.get(accepted));
    const files = encodeCheckpoint({ ...checkpoint, progress: change(checkpoint.progress) }, tensors);
    const uri = `${this.#folder}/${stepName(accepted.step)}-${artifactSha256(files)}`;
    const ref = await this.#artifacts.put(uri, files);
    for (const other of all)
      if (other.step >= accepted.step && other.uri !== uri) await this.#artifacts.remove(other.uri);
    this.#log.warn({ uri, step: accepted.step }, 'rolled back to the policy in use');
    return { ...ref, step: accepted.step };
  }

  /** Newest first. */
  async list(): Promise<StoredCheckpoint[]> {
    const found: StoredCheckpoint[] = [];
    for (const uri of await this.#artifacts.list(this.#folder)) {
      const match = /\/(\d+)-([0-9a-f]{64})$/.exec(uri);
      if (match) found.push({ uri, step: Number(match[1]), sha256: match[2]! });
      else this.#log.warn({ uri }, 'not a checkpoint name, left alone');
    }
    return found.sort((a, b) => b.step - a.step);
  }

  /**
   * The newest checkpoint that can be read, null if there is none. One that is corrupt is named in the log and removed, so
   * that the steps after the fall back take its place; one that the storage refuses to give is named and left.
   */
  async loadNewest(): Promise<{
    stored: StoredCheckpoint;
    checkpoint: Checkpoint;
    state: LearnerState;
  } | null> {
    const all = await this.list();
    for (const stored of all) {
      try {
        const { checkpoint, tensors } = decodeCheckpoint(await this.#artifacts.get(stored));
        const state = { trainer: { tensors, scalars: checkpoint.scalars }, extra: checkpoint.extra };
        return { stored, checkpoint, state };
      } catch (error) {
        this.#log.error(
          { err: error, uri: stored.uri },
          `checkpoint of step ${stored.step} cannot be used: ${(error as Error).message}; falling back to the one before`,
        );
        // An error with a cause came from the storage: the bytes may be good.
        if ((error as Error).cause === undefined || error instanceof CheckpointError)
          await this.#artifacts.remove(stored.uri);
      }
    }
    if (all.length > 0)
      this.#log.error(
        'no checkpoint could be read: training begins again with the earliest retained samples',
      );
    return null;
  }

  /** Step of the oldest checkpoint kept: manifests after it may be needed. */
  async oldestStep(): Promise<number> {
    return (await this.list()).at(-1)?.step ?? 0;
  }
}
