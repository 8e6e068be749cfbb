/** Both tokenizers of the paper's table 5 over one catalogue: three levels of k-means against two and FSQ. */
import { availableParallelism } from 'node:os';
import {
  type CodebookLevel,
  type CodebookMetrics,
  measureCodebook,
  trainCodebook,
  type Vectors,
  withEncoder,
} from '@onemall/quantization';
import { measure } from '../report/machine.ts';

const THREADS = Math.min(2, availableParallelism());
/** Definitions are not given there. */
export const PAPER = {
  ResKmeans: { conflict: 0.36, exclusive: 0.86 },
  ResKmeansFSQ: { conflict: 0.11, exclusive: 0.95 },
};

export interface Catalogue {
  name: string;
  vectors: Vectors;
  codes: readonly [number, number, number];
  maxIterations: number;
  maxVectorsPerCode: number;
  /** The first two levels where they are trained already; filled in by the first row. */
  shared?: { levels: readonly CodebookLevel[] };
}

export interface ConflictRow extends CodebookMetrics {
  name: string;
  tokenizer: 'ResKmeans' | 'ResKmeansFSQ';
  codes: readonly [number, number, number];
  cpuSeconds: number;
}

/** Equally many codes for both: the difference is the kind of the last level alone. */
export async function conflictRows(
  { name, vectors, codes, maxIterations, maxVectorsPerCode, shared }: Catalogue,
  print: (line: string) => void,
): Promise<ConflictRow[]> {
  const rows: ConflictRow[] = [];
  for (const lastLevel of ['kmeans', 'fsq'] as const) {
    let metrics: CodebookMetrics | undefined;
    const { cpuSeconds } = await measure(async () => {
      const codebook = await trainCodebook(vectors, {
        scenario: 'bench',
        version: 1,
        numCodes: codes,
        lastLevel,
        cutoffMs: 0,
        seed: 1,
        maxIterations,
        maxVectorsPerCode,
        numThreads: THREADS,
        ...(shared && { resume: { levels: shared.levels, kmeans: null } }),
      });
      if (shared) shared.levels = codebook.levels.slice(0, 2);
      metrics = await withEncoder(codebook, (encoder) => measureCodebook(encoder, vectors), THREADS);
    });
    const tokenizer = lastLevel === 'fsq' ? 'ResKmeansFSQ' : 'ResKmeans';
    const row: ConflictRow = { name, tokenizer, codes, ...metrics!, cpuSeconds };
    print(JSON.stringify(row));
    rows.push(row);
  }
  return rows;
}

/** Conflict of FSQ as a share of that of k-means. */
export function fsqShare([kmeans, fsq]: readonly { conflict: number }[]): number {
  return fsq!.conflict / kmeans!.conflict;
}
