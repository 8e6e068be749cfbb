/** What a model under test gives for a request. */
import type { ScenarioName } from '@onemall/simulator/world';
import type { WorldLog } from '../log/world-log.ts';

export interface AskedRequest {
  request: number;
  scenario: ScenarioName;
  requestTimeMs: number;
}

export interface ListModel {
  readonly name: string;
  /** Item numbers, best first, distinct, at most `depth`, all of them there as of the request. */
  rank(asked: AskedRequest, depth: number): Promise<Int32Array>;
}

/** A request of the log as models are asked. */
export const asked = (log: WorldLog, request: number): AskedRequest => ({
  request,
  scenario: log.scenario(request),
  requestTimeMs: log.requests.timeMs.at(request),
});
