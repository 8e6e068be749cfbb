/**
 * Asks for the SIDs of all items to be computed again and waits until they are what the newest codebooks give. The
 * live-sid-updater stays the only writer of item-sids: a codebook record that comes again makes it go through its catalogue,
 * a part each turn, while new items and product changes go on. Reads items, codebooks and item-sids; writes codebooks.
 */
import type { Codebook, Item, ItemSid } from '@onemall/contracts';
import { LIVE_STREAM, NUM_LEVELS, readCodebook, stackVectors } from '@onemall/quantization';
import { withEncoderThreads } from '@onemall/quantization/encoder-threads';
import { fillCatalogue } from '../adapters/fill-catalogue.ts';
import { readTable } from '../adapters/read-table.ts';
import { type JobContext, JobRefusedError } from './job.ts';

const LOOK_EVERY_MS = 500;
/** Looks without progress. */
const ASK_AGAIN_AFTER = 20;
/** Vectors encoded at once. */
const CHUNK = 8_192;

export async function retokenizeCatalogue(context: JobContext): Promise<Record<string, unknown>> {
  const { clock, config, kafka, progress, stopping } = context;
  await progress({ step: 'reading codebooks and items', done: 0, total: 1 });
  const codebooks = [...(await readTable(kafka, 'codebooks')).values()].filter(
    ({ scenario }) => config.scenarios[scenario] !== undefined && scenario !== LIVE_STREAM,
  );
  if (codebooks.length === 0) throw new JobRefusedError('There is no codebook of a configured scenario yet');
  const items = await readTable(kafka, 'items');
  const expected = await expectedSids(context, items, codebooks);
  const sids = await followSids(context, expected);
  try {
    const wrongAtFirst = sids.wrong();
    const giveUpMs = clock.nowMs() + config.retokenizeTimeoutMs;
    await askAgain(context, codebooks);
    for (let [wrong, idle] = [wrongAtFirst, 0]; wrong > 0; ) {
      await progress({
        step: 'SIDs as the codebooks give them',
        done: expected.size - wrong,
        total: expected.size,
      });
      if (clock.nowMs() > giveUpMs)
        throw new Error(
          `${wrong} of ${expected.size} items still have another SID after ${config.retokenizeTimeoutMs} ms: is the live-sid-updater at work, and does it serve the newest codebooks?`,
        );
      await clock.sleep(LOOK_EVERY_MS, stopping);
      await sids.readToEnd();
      const now = sids.wrong();
      idle = now < wrong ? 0 : idle + 1;
      wrong = now;
      // An updater that had not read a wrong SID when it was asked found nothing to do.
      if (idle > 0 && idle % ASK_AGAIN_AFTER === 0) await askAgain(context, codebooks);
    }
    return { items: expected.size, wrongBefore: wrongAtFirst };
  } finally {
    await sids.close();
  }
}

async function askAgain({ clock, kafka }: JobContext, codebooks: readonly Codebook[]): Promise<void> {
  const writer = await kafka.openWriter();
  const createdMs = clock.nowMs();
  await writer.send(
    codebooks.map((value) => ({ topic: 'codebooks', key: value.scenario, value: { ...value, createdMs } })),
  );
  await writer.close();
}

/** Codes by key of item-sids. */
async function expectedSids(
  { artifacts, config, stopping }: JobContext,
  items: ReadonlyMap<string, Item>,
  codebooks: readonly Codebook[],
): Promise<Map<string, string>> {
  const { catalogue } = await fillCatalogue(items, config);
  const expected = new Map<string, string>();
  for (const record of codebooks) {
    const ids = [...catalogue.ids(record.scenario)].filter((id) => catalogue.vector(id) !== null);
    const source = {
      dim: record.dim,
      *chunks() {
        for (let at = 0; at < ids.length; at += CHUNK) {
          stopping.throwIfAborted();
          yield stackVectors(ids.slice(at, at + CHUNK).map((id) => catalogue.vector(id)!));
        }
      },
    };
    const codes = await withEncoderThreads(
      readCodebook(await artifacts.get(record)),
      { numVectors: ids.length, maxThreads: config.trainingThreads },
      (encoder) => encoder.encode(source),
    );
    for (const [i, id] of ids.entries())
      expected.set(
        `${id}:${record.codebookVersion}`,
        codes.subarray(i * NUM_LEVELS, (i + 1) * NUM_LEVELS).join(),
      );
  }
  return expected;
}

/** Follows item-sids; items that change after the job began are no longer asked about. */
async function followSids({ kafka }: JobContext, expected: Map<string, string>) {
  const found = new Map<string, string>();
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  const sids = await kafka.openTable({
    topic: 'item-sids',
    onRecord: ({ key, value }: { key: string; value: ItemSid | null }) => {
      if (value) found.set(key, [value.sid.c1, value.sid.c2, value.sid.c3].join());
      else found.delete(key);
    },
    onError: failed.reject,
  });
  let caughtUp = false;
  const items = await kafka.openTable({
    topic: 'items',
    onRecord: ({ key }) => {
      if (!caughtUp) return;
      for (const known of [...expected.keys()]) if (known.startsWith(`${key}:`)) expected.delete(known);
    },
    onError: failed.reject,
  });
  const readToEnd = (): Promise<unknown> =>
    Promise.race([Promise.all([sids.readToEnd(), items.readToEnd()]), failed.promise]);
  await readToEnd();
  caughtUp = true;
  return {
    readToEnd,
    wrong: (): number => [...expected].filter(([key, codes]) => found.get(key) !== codes).length,
    close: async (): Promise<void> => {
      await sids.close();
      await items.close();
    },
  };
}
