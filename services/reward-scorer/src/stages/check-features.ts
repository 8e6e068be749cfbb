import { FEATURE_VERSION, NUM_DENSE, NUM_IDS } from '@onemall/features';
import type { RankerManifest } from '@onemall/learning';

/** @throws Error when the ranker was trained on other numbers than this build computes */
export function checkFeatures(
  manifest: Pick<RankerManifest, 'rankerVersion' | 'featureVersion' | 'numDense' | 'numIds'>,
): void {
  const built = { featureVersion: FEATURE_VERSION, numDense: NUM_DENSE, numIds: NUM_IDS };
  for (const [name, expected] of Object.entries(built)) {
    const came = manifest[name as keyof typeof built];
    if (came !== expected)
      throw new Error(
        `Ranker ${manifest.rankerVersion} has ${name} ${came}, this build of the features has ${expected}: train and publish it with the same build, or run the scorer of its build`,
      );
  }
}
