/** What is simulated, once and for all: figures belong to the hash of the plan, which names world, seed, rate and spans. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from '@onemall/service-kit';
import { type WorldSpec, worldHash } from '@onemall/simulator/world';
import { readWorld } from '@onemall/simulator/world-file';

const count = z.number().int().positive();
const windows = z.strictObject({ clickWindowMs: count, buyWindowMs: count });

export const planShape = z.strictObject({
  name: z.string().min(1),
  /** A preset of the simulator or the path of a world file. */
  world: z.string().min(1),
  seed: z.number().int().min(0),
  startMs: count,
  /** Log events and room changes per second of event time. */
  eventsPerS: z.number().positive(),
  scenarios: z.record(z.string(), windows),
  /** Exposures shown before the cut; what left the join by then may train. */
  trainExposures: count,
  /** Exposures shown after it: the last span, on which models with frozen weights are judged. */
  testExposures: count,
  /** Share of the requests before the cut that no model trains on, by hash of requestId; settings are chosen on them. */
  heldBackFraction: z.number().min(0).max(1),
});
export type EvaluationPlan = z.infer<typeof planShape> & { spec: WorldSpec; hash: string };

/** @throws Error naming the keys that are wrong, ConfigError for a world that is not there */
export function parsePlan(value: unknown): EvaluationPlan {
  const plan = planShape.parse(value);
  const spec = readWorld(plan.world);
  const named = JSON.stringify({ ...plan, world: worldHash(spec) });
  return { ...plan, spec, hash: createHash('sha256').update(named).digest('hex').slice(0, 16) };
}

/** evaluation: the published tables stand on it; evaluation-tenth: a tenth of its users, items and traffic, for what many runs need. */
export const planNames = ['evaluation', 'evaluation-tenth'] as const;
export type PlanName = (typeof planNames)[number];

export const readEvaluationPlan = (name: PlanName = 'evaluation'): EvaluationPlan =>
  parsePlan(JSON.parse(readFileSync(new URL(`../../../plans/${name}.json`, import.meta.url), 'utf8')));
