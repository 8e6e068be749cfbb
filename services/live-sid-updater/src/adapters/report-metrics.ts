/** Gauges for /status and /metrics, and points on sid-metrics. */
import type { Metric } from '@onemall/contracts';
import type { RecordWriter } from '@onemall/kafka-io';
import { LIVE_STREAM, measureSids, namedMetrics } from '@onemall/quantization';
import type { ServiceContext } from '@onemall/service-kit';
import type { UpdaterConfig } from '../config.ts';
import type { ComputedLiveSids } from '../stages/compute-live-sids.ts';
import { RecentCount } from '../state/recent-count.ts';
import type { UpdaterState } from '../state/updater-state.ts';
import type { ChangeLog } from './change-log.ts';

const SOURCE = 'live-sid-updater';

export class SidReporter {
  readonly #context: ServiceContext<UpdaterConfig>;
  readonly #state: UpdaterState;
  readonly #changes: ChangeLog;
  readonly #productChurn = new RecentCount();
  readonly #itemChurn = new RecentCount();
  readonly #modelChurn = new RecentCount();
  readonly #held = new RecentCount();
  #computed = 0;
  #changed = 0;
  #nextMs = 0;
  #nextCatalogueMs = 0;

  constructor(context: ServiceContext<UpdaterConfig>, state: UpdaterState, changes: ChangeLog) {
    this.#context = context;
    this.#state = state;
    this.#changes = changes;
  }

  countComputed({ computed, productChanges, itemChanges, modelChanges, held }: ComputedLiveSids): void {
    const nowMs = this.#context.clock.nowMs();
    this.#computed += computed;
    this.#changed += productChanges + itemChanges + modelChanges;
    this.#productChurn.add(nowMs, productChanges);
    this.#itemChurn.add(nowMs, itemChanges);
    this.#modelChurn.add(nowMs, modelChanges);
    this.#held.add(nowMs, held.length);
    const { meter } = this.#context;
    meter.set('live_sids_recomputed', this.#computed, 'Live SIDs computed since start');
    meter.set('live_sid_changes', this.#changed, 'Live SIDs that became another one since start');
  }

  /** The catalogue has just been encoded with a new codebook: its metrics are due. */
  catalogueChanged(): void {
    this.#nextCatalogueMs = 0;
  }

  /** @returns true when a report was due and written */
  async report(writer: RecordWriter): Promise<boolean> {
    const { clock, config, meter } = this.#context;
    const nowMs = clock.nowMs();
    if (nowMs < this.#nextMs) return false;
    this.#nextMs = nowMs + config.sidMetricsEveryMs;
    const oldest = this.#state.rooms.oldestPendingMs();
    const values = {
      liveRooms: this.#state.rooms.liveCount,
      liveSidsRecomputed: this.#computed,
      liveSidChanges: this.#changed,
      churnPerMinute: [this.#productChurn, this.#itemChurn, this.#modelChurn].reduce(
        (sum, churn) => sum + churn.lastMinute(nowMs),
        0,
      ),
      productChangePerMinute: this.#productChurn.lastMinute(nowMs),
      itemChangePerMinute: this.#itemChurn.lastMinute(nowMs),
      modelChangePerMinute: this.#modelChurn.lastMinute(nowMs),
      heldPerMinute: this.#held.lastMinute(nowMs),
      stalenessMs: oldest === null ? 0 : Math.max(0, nowMs - oldest),
      itemSids: this.#state.itemSids.size,
    };
    meter.set('live_rooms', values.liveRooms, 'Live rooms of this process');
    meter.set('live_sids_recomputed', values.liveSidsRecomputed, 'Live SIDs computed since start');
    meter.set('item_sids', values.itemSids, 'SIDs of product cards and short videos published');
    meter.set(
      'live_sid_churn_per_minute',
      values.churnPerMinute,
      'Live SIDs that changed in the last minute',
    );
    meter.set(
      'live_sid_staleness_ms',
      values.stalenessMs,
      'Age of the oldest product change that no live SID reflects',
    );
    meter.set('items_waiting', this.#state.dirtyItems.size, 'Items whose SID is to be computed');
    meter.set(
      'live_sid_model_change_per_minute',
      values.modelChangePerMinute,
      'Live SIDs that a codebook changed within its version in the last minute; 0 unless something is wrong',
    );
    meter.set(
      'live_sids_held_per_minute',
      values.heldPerMinute,
      'Rooms that did not go back at once to the SID they had just left, in the last minute',
    );
    this.#state.flaps.forget(nowMs);
    meter.setLag(await this.#changes.lag());
    const points: Metric[] = [
      { source: SOURCE, scenario: '', version: '', step: 0, values, createdMs: nowMs },
    ];
    if (nowMs >= this.#nextCatalogueMs && this.#state.dirtyItems.size === 0) {
      this.#nextCatalogueMs = nowMs + config.catalogueMetricsEveryMs;
      points.push(...this.#catalogueMetrics(nowMs));
    }
    await writer.send(points.map((value) => ({ topic: 'sid-metrics', key: SOURCE, value })));
    return true;
  }

  #catalogueMetrics(nowMs: number): Metric[] {
    const points: Metric[] = [];
    for (const scenario of this.#state.scenarios)
      for (const { codebook } of this.#state.encoders(scenario)) {
        const { version, numCodes } = codebook;
        const codes =
          scenario === LIVE_STREAM
            ? this.#state.liveSids.codes(version)
            : this.#state.itemSids.codes(scenario, version);
        if (codes.length === 0) continue;
        const values = namedMetrics(measureSids(codes, numCodes));
        points.push({
          source: SOURCE,
          scenario,
          version: String(version),
          step: 0,
          values,
          createdMs: nowMs,
        });
      }
    return points;
  }
}
