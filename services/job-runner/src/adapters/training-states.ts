/** Where a training is, as an artifact that the job's data names: a later attempt of the same job goes on there. */
import { createHash } from 'node:crypto';
import { deserialize, serialize } from 'node:v8';
import type { Projector, TrainingState, Vectors } from '@onemall/quantization';
import type { ArtifactRef } from '@onemall/service-kit';
import type { JobContext } from '../jobs/job.ts';

interface KeptState extends ArtifactRef {
  fingerprint: string;
}

/** What must be equal for a state to be of use. */
export function trainingFingerprint(
  { data }: Vectors,
  { projector, ...options }: { projector?: Projector } & object,
): string {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const hash = createHash('sha256').update(JSON.stringify(options)).update(bytes);
  return (projector ? hash.update(projector.model) : hash).digest('hex');
}

export class TrainingStates {
  readonly #context: JobContext;
  readonly #key: string;
  readonly #fingerprint: string;
  #count = 0;
  #nextMs = 0;

  constructor(context: JobContext, scenario: string, fingerprint: string) {
    this.#context = context;
    this.#key = `state:${scenario}`;
    this.#fingerprint = fingerprint;
  }

  /** The state of an attempt before on the same vectors and options; null where none can be used. */
  async load(): Promise<TrainingState | null> {
    const { artifacts, log } = this.#context;
    const kept = this.#kept();
    if (!kept) return null;
    if (kept.fingerprint !== this.#fingerprint) {
      log.info({ uri: kept.uri }, 'items or options have changed since the attempt before: training anew');
      return null;
    }
    try {
      return deserialize((await artifacts.get(kept)).get('state.bin')!) as TrainingState;
    } catch (error) {
      log.warn({ err: error, uri: kept.uri }, 'the state of an attempt before cannot be read: training anew');
      return null;
    }
  }

  /** Keeps the state if the last one is long enough ago; a finished level always. */
  async offer(state: TrainingState): Promise<void> {
    const { artifacts, clock, config, jobId, keep } = this.#context;
    if (state.kmeans && clock.nowMs() < this.#nextMs) return;
    this.#nextMs = clock.nowMs() + config.trainingStateEveryMs;
    const before = this.#kept();
    const uri = `checkpoints/codebooks/${jobId}-${clock.nowMs()}-${this.#count++}`;
    const ref = await artifacts.put(uri, new Map([['state.bin', serialize(state)]]));
    await keep({ [this.#key]: { ...ref, fingerprint: this.#fingerprint } });
    if (before) await artifacts.remove(before.uri);
  }

  async clear(): Promise<void> {
    const kept = this.#kept();
    await this.#context.keep({ [this.#key]: null });
    if (kept) await this.#context.artifacts.remove(kept.uri);
  }

  #kept(): KeptState | null {
    return (this.#context.kept()[this.#key] as KeptState | undefined) ?? null;
  }
}
