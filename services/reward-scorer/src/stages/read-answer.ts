/** Reads what a ranker answers over HTTP: numbers for every row, or an error that says what is wrong. */
import { FEATURE_VERSION, NUM_DENSE, NUM_IDS } from '@onemall/features';
import type { RankerScores } from '@onemall/learning';
import type { RankerIdentity } from './score-candidates.ts';

/** The answer is not what was asked for. */
export class BadAnswerError extends Error {
  override name = 'BadAnswerError';
}

/** Another version answered than was asked. */
export class OtherVersionError extends Error {
  override name = 'OtherVersionError';
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parsed(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new BadAnswerError(`expected JSON, got ${JSON.stringify(text.slice(0, 80))}`, { cause });
  }
  if (!isObject(value)) throw new BadAnswerError(`expected an object, got ${text.slice(0, 80)}`);
  return value;
}

/** GET /ranker. @throws BadAnswerError, also when the ranker reads other features than this build makes */
export function readIdentity(text: string): RankerIdentity {
  const { rankerVersion, featureVersion, numDense, numIds, egpmScale } = parsed(text);
  if (typeof rankerVersion !== 'string' || rankerVersion === '')
    throw new BadAnswerError(`rankerVersion must be a text, got ${JSON.stringify(rankerVersion)}`);
  if (featureVersion !== FEATURE_VERSION || numDense !== NUM_DENSE || numIds !== NUM_IDS)
    throw new BadAnswerError(
      `ranker ${rankerVersion} reads features of version ${featureVersion} (${numDense} dense, ${numIds} ids), this build makes version ${FEATURE_VERSION} (${NUM_DENSE} dense, ${NUM_IDS} ids)`,
    );
  if (!isObject(egpmScale)) throw new BadAnswerError('egpmScale must hold a number by scenario');
  const scales: Record<string, number> = {};
  for (const [scenario, scale] of Object.entries(egpmScale)) {
    if (typeof scale !== 'number' || !(scale > 0))
      throw new BadAnswerError(`egpmScale of ${scenario} must be above 0, got ${JSON.stringify(scale)}`);
    scales[scenario] = scale;
  }
  return { rankerVersion, egpmScale: scales };
}

/** POST /score. @throws BadAnswerError unless each list holds one number per row @throws OtherVersionError */
export function readScores(text: string, rankerVersion: string, numRows: number): RankerScores {
  const answer = parsed(text);
  if (answer.rankerVersion !== rankerVersion)
    throw new OtherVersionError(
      `expected scores of ranker ${rankerVersion}, got those of ${JSON.stringify(answer.rankerVersion)}`,
    );
  const numbers = (name: 'pCtr' | 'pCtcvr' | 'buyValueCents', most: number): Float32Array => {
    const list = answer[name];
    if (!Array.isArray(list) || list.length !== numRows)
      throw new BadAnswerError(
        `expected ${numRows} numbers in ${name}, got ${Array.isArray(list) ? list.length : typeof list}`,
      );
    return Float32Array.from(list as unknown[], (value, i) => {
      // JSON has no NaN: a ranker that computes one sends null
      if (typeof value !== 'number' || !(value >= 0 && value <= most))
        throw new BadAnswerError(`expected a number from 0 to ${most} in ${name}[${i}], got ${value}`);
      return value;
    });
  };
  return {
    pCtr: numbers('pCtr', 1),
    pCtcvr: numbers('pCtcvr', 1),
    buyValueCents: numbers('buyValueCents', 3e38),
  };
}
