/** Topics, codebooks and policies of a finished RL run, where the services of the pipeline look for them. */
import { TOPICS } from '@onemall/contracts';
import { connectKafka } from '@onemall/kafka-io';
import { readPolicyManifest } from '@onemall/learning';
import { readCodebook } from '@onemall/quantization';
import { FolderArtifactStore } from '@onemall/service-kit';
import type { RunStore } from '../world/adapters/run-store.ts';
import { CODEBOOK_VERSION } from '../world/samples/semantic-ids.ts';
import type { LoopSettings } from './loop-settings.ts';

const NUM_LEVELS = 3;

export interface PublishedRun {
  /** URI@SHA256 by arm: what a retriever is pinned to. */
  policies: ReadonlyMap<string, string>;
  /** Cards and videos of the catalogue. */
  items: number;
}

/** @throws Error when the run is not finished */
export async function publishRun(
  store: RunStore,
  { brokers, registryUrl, namespace, artifacts, scenarios, retention }: LoopSettings,
  arms: readonly string[],
): Promise<PublishedRun> {
  const codes = (await store.files('codes'))?.get('codes');
  if (!codes) throw new Error(`${store.folder} holds no catalogue's codes: let evaluate -- rl finish there`);
  const folder = new FolderArtifactStore(artifacts);
  const policies = new Map<string, string>();
  for (const arm of arms) {
    const files = await store.files(`rl-${arm}/policy`);
    if (!files) throw new Error(`${store.folder} holds no policy of ${arm}: let evaluate -- rl finish there`);
    const { uri, sha256 } = await folder.put(`policies/retriever/${arm}`, servable(files));
    policies.set(arm, `${uri}@${sha256}`);
  }
  const kafka = await connectKafka({ brokers, registryUrl, namespace, clientId: 'closed-loop' });
  try {
    const names = TOPICS.map((topic) => topic.name);
    await kafka.createTopics(names, { retention });
    await kafka.registerSchemas(names);
    const writer = await kafka.openWriter();
    for (const scenario of Object.keys(scenarios)) {
      const files = await store.files(`codebook/${scenario}`);
      if (!files) throw new Error(`${store.folder} holds no codebook of ${scenario}`);
      const { version, numCodes, dim, cutoffMs } = readCodebook(files);
      const ref = await folder.put(`codebooks/${scenario}/${version}`, files);
      const value = {
        ...{ scenario, codebookVersion: CODEBOOK_VERSION, ...ref, numCodes: [...numCodes], dim },
        ...{ oldestVersion: CODEBOOK_VERSION, metrics: {}, towerVersion: null, towerUri: null },
        ...{ cutoffMs, createdMs: cutoffMs },
      };
      await writer.send([{ topic: 'codebooks', key: `${scenario}:${version}`, value }]);
    }
    await writer.close();
  } finally {
    await kafka.close();
  }
  const { BYTES_PER_ELEMENT } = Int32Array;
  return { policies, items: codes.byteLength / (NUM_LEVELS * BYTES_PER_ELEMENT) };
}

/** Runs of before manifests named the normalizer have policies that were trained with popular, the only one of table 4. */
function servable(files: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, Uint8Array> {
  const manifest = readPolicyManifest(files);
  if (manifest.normalizer) return files;
  const bytes = new TextEncoder().encode(JSON.stringify({ ...manifest, normalizer: 'popular' }, null, 2));
  return new Map([...files, ['policy.json', bytes]]);
}
