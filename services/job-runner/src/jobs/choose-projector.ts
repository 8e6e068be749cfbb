/** The projector of the next codebook of product cards: the one of the version before, or one trained on named pairs. */
import { type Projector as TrainedProjector, trainProjector } from '@onemall/learning/projector';
import {
  type Catalogue,
  PRODUCT_CARD,
  type Projector,
  ProjectorRunner,
  readPairs,
  stackVectors,
  type Vectors,
} from '@onemall/quantization';
import { hashFraction, SeededRandom } from '@onemall/service-kit';
import { pairRecall } from '@onemall/text-encoder';
import { type JobContext, JobRefusedError } from './job.ts';

const HELD_OUT = 0.1;
const K = 50;

export interface ChosenProjector {
  projector: Projector | undefined;
  /** Of the codebook's record. */
  metrics: Record<string, number>;
}

/**
 * A new projector is another space, in which all codes begin anew: therefore it is trained only where `projectorPairs` names
 * other pairs than those of the version before, and taken only if held-out pairs lie at least as close as without.
 * Scenarios other than product cards have no pairs among themselves and get none.
 */
export async function chooseProjector(
  context: JobContext,
  scenario: string,
  vectors: Vectors,
  catalogue: Catalogue,
  before: Projector | undefined,
): Promise<ChosenProjector> {
  const { config, log } = context;
  const trainedOn = config.projectorPairs;
  if (scenario !== PRODUCT_CARD) return { projector: undefined, metrics: {} };
  if (before && before.inDim !== vectors.dim)
    log.info(
      { scenario, before: before.inDim, now: vectors.dim },
      'vectors have another length: no projector',
    );
  const kept = before?.inDim === vectors.dim ? before : undefined;
  if (trainedOn === '' || kept?.trainedOn === trainedOn) return { projector: kept, metrics: {} };
  const { rows, train, heldOut } = await pairsOfCatalogue(context, catalogue, trainedOn);
  const random = new SeededRandom(config.seed);
  const { shape, model }: TrainedProjector = await trainProjector(rows, train, {
    steps: config.projectorSteps,
    outDim: config.projectorDim,
    seed: config.seed,
    random,
  });
  const projector = { inDim: shape.inDim, outDim: shape.outDim, trainedOn, model };
  const recall = { before: await recallOf(rows, heldOut), after: await recallOf(rows, heldOut, projector) };
  const metrics = { projectorRecall50Before: recall.before, projectorRecall50After: recall.after };
  const taken = recall.after >= recall.before;
  const pairs = { train: train.length / 2, heldOut: heldOut.length / 2 };
  log.info({ scenario, pairs, recall, taken }, 'a projector is trained');
  return { projector: taken ? projector : kept, metrics };
}

async function recallOf(rows: Vectors, pairs: Int32Array, projector?: Projector): Promise<number> {
  if (!projector) return (await pairRecall(rows, pairs, [K]))[K]!;
  const runner = await ProjectorRunner.open(projector);
  try {
    return (await pairRecall(await runner.project(rows), pairs, [K]))[K]!;
  } finally {
    await runner.close();
  }
}

/** Vectors of the cards that the pairs name and the catalogue still has, and the pairs as rows of them. */
async function pairsOfCatalogue(
  { artifacts }: JobContext,
  catalogue: Catalogue,
  named: string,
): Promise<{ rows: Vectors; train: Int32Array; heldOut: Int32Array }> {
  const [uri, sha256] = named.split('@') as [string, string];
  const { itemIds, commercial } = readPairs(await artifacts.get({ uri, sha256 }));
  const rowOf = new Map<string, number>();
  const vectors: Float32Array[] = [];
  const row = (itemId: string): number | null => {
    const known = rowOf.get(itemId);
    if (known !== undefined) return known;
    const vector = catalogue.scenarioOf(itemId) === PRODUCT_CARD ? catalogue.vector(itemId) : null;
    if (!vector) return null;
    rowOf.set(itemId, vectors.length);
    return vectors.push(vector) - 1;
  };
  const [train, heldOut]: [number[], number[]] = [[], []];
  for (let i = 0; i < commercial.length; i += 2) {
    const [a, b] = [itemIds[commercial[i]!]!, itemIds[commercial[i + 1]!]!];
    const [left, right] = [row(a), row(b)];
    if (left === null || right === null) continue;
    (hashFraction(`projector:${a}:${b}`) < HELD_OUT ? heldOut : train).push(left, right);
  }
  if (train.length === 0 || heldOut.length === 0)
    throw new JobRefusedError(
      `The pairs ${named} leave ${train.length / 2} pairs of the catalogue's product cards to train on and ${heldOut.length / 2} to measure by: at least one of each is needed. Run collect-pairs again`,
    );
  return {
    rows: stackVectors(vectors),
    train: Int32Array.from(train),
    heldOut: Int32Array.from(heldOut),
  };
}
