/** JSON schemas of POST /retrieve: what fastify validates and /openapi.json shows. */
import type { UserHistory } from '@onemall/contracts';
import type { ServedItem } from '../stages/serve-items.ts';

export interface RetrieveBody {
  scenario: string;
  userId?: string;
  /** Default: now. */
  requestTimeMs?: number;
  history: UserHistory;
  k: number;
  beamWidth?: number;
  filters: { categories: string[]; excludeItemIds: string[]; excludeBought: boolean };
}
export interface RetrieveAnswer {
  policyVersion: string;
  codebookVersion: number;
  items: ServedItem[];
}

export interface ApiLimits {
  scenarios: readonly string[];
  maxK: number;
  maxBeam: number;
  defaultBeam: number;
  maxHistory: number;
}

const id = { type: 'string', minLength: 1, maxLength: 256 };

export function retrieveSchema({ scenarios, maxK, maxBeam, defaultBeam, maxHistory }: ApiLimits) {
  const events = (what: string) => ({
    type: 'array',
    maxItems: maxHistory,
    default: [],
    description: `${what}, newest first`,
    items: {
      type: 'object',
      additionalProperties: false,
      required: ['itemId', 'eventTimeMs'],
      properties: {
        itemId: id,
        eventTimeMs: { type: 'integer', minimum: 0, description: 'ms since the Unix epoch' },
        category: { type: 'string', maxLength: 256, default: '' },
      },
    },
  });
  const failure = (description: string) => ({
    description,
    type: 'object',
    properties: { error: { type: 'string' } },
  });
  return {
    summary: 'The best items for a user now',
    description:
      'Beam search over the semantic IDs that exist now. Events of the history at or after requestTimeMs are left out.',
    body: {
      type: 'object',
      additionalProperties: false,
      required: ['scenario', 'history', 'k'],
      properties: {
        scenario: { type: 'string', enum: [...scenarios] },
        userId: { ...id, description: 'for logs only: what is known of the user is the history' },
        requestTimeMs: { type: 'integer', minimum: 0, description: 'default: now' },
        history: {
          type: 'object',
          additionalProperties: false,
          properties: {
            exposures: events('items shown'),
            clicks: events('items clicked'),
            buys: events('items bought'),
          },
        },
        k: { type: 'integer', minimum: 1, maximum: maxK, description: 'items wanted' },
        beamWidth: {
          type: 'integer',
          minimum: 1,
          maximum: maxBeam,
          description: `SIDs kept per level, at least k; default the greater of k and ${defaultBeam}`,
        },
        filters: {
          type: 'object',
          additionalProperties: false,
          default: {},
          properties: {
            categories: {
              type: 'array',
              maxItems: 100,
              default: [],
              items: { type: 'string', maxLength: 256 },
              description: 'only items of these, and rooms that sell one; empty for all',
            },
            excludeItemIds: { type: 'array', maxItems: 10_000, default: [], items: id },
            excludeBought: {
              type: 'boolean',
              default: false,
              description: 'leave out what history.buys holds',
            },
          },
        },
      },
    },
    response: {
      200: {
        description: 'Items, best first; fewer than k where the beam or the filters leave fewer',
        type: 'object',
        required: ['policyVersion', 'codebookVersion', 'items'],
        properties: {
          policyVersion: { type: 'string' },
          codebookVersion: { type: 'integer' },
          items: {
            type: 'array',
            items: {
              type: 'object',
              required: ['itemId', 'sid', 'score'],
              properties: {
                itemId: { type: 'string' },
                sid: {
                  type: 'object',
                  required: ['c1', 'c2', 'c3'],
                  properties: {
                    c1: { type: 'integer' },
                    c2: { type: 'integer' },
                    c3: { type: 'integer' },
                  },
                },
                score: {
                  type: 'number',
                  description: 'log-probability of the SID, plus denseWeight x cosine where that is set',
                },
              },
            },
          },
        },
      },
      400: failure('The request is wrong: what was expected and what came'),
      413: failure('The body is too large'),
      503: failure('No policy yet, or too many requests: try again after Retry-After seconds'),
      504: failure('The search took too long'),
    },
  };
}
