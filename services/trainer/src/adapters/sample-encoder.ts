/** Samples as a retrieval model's tensors: histories, products on sale and the target in one set of codebook versions. */
import type { StreamedSample } from '@onemall/contracts';
import {
  itemTensors,
  type RequestContext,
  requestTensors,
  type SidCodes,
  type SidLayout,
  sidLayout,
} from '@onemall/features';
import type { RetrievalSample } from '@onemall/learning';
import type { StageMeter } from '@onemall/service-kit';
import type { Codebooks } from '../learner.ts';
import { describeItem } from '../stages/describe-item.ts';
import type { SidTables } from './sid-tables.ts';

export interface SampleEncoderParts {
  scenarios: readonly string[];
  codebooks: Codebooks;
  tables: Pick<SidTables, 'sidOf'>;
  /** H: events per behaviour. */
  historyLength: number;
  meter: Pick<StageMeter, 'add'>;
}

export class SampleEncoder {
  readonly #parts: SampleEncoderParts;
  readonly #layout: SidLayout;

  constructor(parts: SampleEncoderParts) {
    this.#parts = parts;
    this.#layout = sidLayout(parts.scenarios, parts.codebooks.numCodes);
  }

  /** null, and counted, where the item has no SID in these codebook versions as of the request. */
  sample(sample: StreamedSample): RetrievalSample | null {
    const { meter, tables } = this.#parts;
    const { exposure, history } = sample;
    const { scenario, requestTimeMs, itemId } = exposure;
    const target = this.#target(sample);
    if (!target) {
      meter.add('left_out_no_own_sid');
      return null;
    }
    const { features, known } = describeItem(sample);
    if (!known) meter.add('unknown_item_features');
    return {
      request: this.request({ scenario, requestTimeMs, history }),
      target,
      item: itemTensors(
        { scenario, features, sid: target },
        (soldId) => tables.sidOf(soldId, requestTimeMs),
        { layout: this.#layout },
      ),
      itemId,
    };
  }

  request(context: RequestContext): RetrievalSample['request'] {
    const { historyLength, tables } = this.#parts;
    return requestTensors(context, (itemId) => tables.sidOf(itemId, context.requestTimeMs), {
      historyLength,
      layout: this.#layout,
    });
  }

  /** Samples carry the SID of the newest version as of the request; the model's own may be another one. */
  #target({ exposure, sid }: StreamedSample): SidCodes | null {
    const { codebooks, tables } = this.#parts;
    if (sid?.codebookVersion === codebooks.codebookVersions[exposure.scenario]) return sid;
    const own = tables.sidOf(exposure.itemId, exposure.requestTimeMs);
    return own?.scenario === exposure.scenario ? own : null;
  }
}
