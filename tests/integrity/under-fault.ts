/** One fault in the middle of traffic; afterwards every record must be accounted for and every sample right. */
import assert from 'node:assert/strict';
import type { TestStack } from '@onemall/testkit';
import type { Verdict } from '../../services/sample-assembler/oracle/verify.ts';
import {
  type Arrival,
  makeTraffic,
  type TrafficOptions,
} from '../../services/sample-assembler/test/traffic.ts';
import { assertJudged, Lab } from './lab.ts';

/** Measured: up to 0.58 and 0.32; where append times tell nothing at all, as when everything is sent at once, 0.62 and 0.59. */
const MOST_UNSURE = { labels: 0.7, histories: 0.65 };

export interface Fault {
  lab: Lab;
  /** The second third of the traffic: what is sent while the fault is there. */
  during: Arrival[];
  /** The first and the last third, sent before the fault and after it. */
  before: Arrival[];
  after: Arrival[];
}

export interface Circumstances {
  seed: number;
  env?: Record<string, string>;
  traffic?: Partial<TrafficOptions>;
  /** Makes something else of the traffic before it is cut in three. */
  change?: (arrivals: Arrival[]) => Arrival[];
  /** Events may come too late, because the fault makes them so. */
  mayBeLate?: boolean;
}

export async function underFault(...circumstances: Parameters<typeof verdictUnderFault>): Promise<void> {
  await verdictUnderFault(...circumstances);
}

/** @returns the oracle's verdict, which is good */
export async function verdictUnderFault(
  stack: TestStack,
  { seed, env, traffic, change = (a) => a, mayBeLate = false }: Circumstances,
  fault: (f: Fault) => Promise<void>,
): Promise<Verdict> {
  const lab = await Lab.create(stack, {
    // Time alone moves no watermark: a sender that a busy machine stops for seconds must not make its own events late.
    ONEMALL_MAX_DELAY_MS: '600000',
    // The oracle is sure of what was read first where more than this lies between.
    ONEMALL_INPUT_FRESHNESS_MS: '200',
    ...env,
  });
  try {
    const startMs = Date.now() - 50_000;
    const options = { seed, numRequests: 600, startMs, orphanShare: 0, ...traffic };
    const arrivals = change(makeTraffic(options));
    await lab.scene.sendCatalogue(startMs);
    const third = Math.floor(arrivals.length / 3);
    const [before, during, after] = [0, 1, 2].map((n) =>
      arrivals.slice(n * third, n === 2 ? arrivals.length : (n + 1) * third),
    ) as [Arrival[], Arrival[], Arrival[]];
    await lab.send(before);
    await fault({ lab, before, during, after });
    await lab.send(after);
    await lab.settle();
    const verdict = await lab.verdict();
    assert.deepEqual(verdict.firstDifferences, []);
    assert.equal(verdict.ok, true);
    assertJudged([verdict], MOST_UNSURE);
    if (!mayBeLate) {
      const shown = arrivals.flatMap((a) => (a.topic === 'exposures' ? [a.value.exposureId] : []));
      const numExposures = new Set(shown).size;
      // Disorder stays inside the bound, so nothing may be late. Closing exposures may have closed meanwhile.
      assert.equal(await lab.numLate(), 0);
      assert.ok(verdict.exposures >= numExposures, `${verdict.exposures} of ${numExposures} were judged`);
      assert.equal(verdict.finals, verdict.exposures);
    }
    return verdict;
  } finally {
    await lab.close();
  }
}
