/** The loss of a training as a curve of at most MOST_POINTS points, however long it takes. */
import path from 'node:path';
import type { Curve } from '../../curves.ts';
import { RunFolder } from '../../sequences/adapters/run-folder.ts';

export const MOST_POINTS = 256;

/** What a checkpoint keeps of it. */
export interface LossCurve {
  /** A point is the mean of so many steps. */
  stepsPerPoint: number;
  points: number[];
  /** Of the steps since the last point. */
  newest: number[];
}

export const emptyCurve = (): LossCurve => ({ stepsPerPoint: 1, points: [], newest: [] });

const mean = (losses: readonly number[]): number => losses.reduce((a, b) => a + b) / losses.length;

/** Adds the loss of a step. Where the points are full, each two become one. */
export function addLoss(curve: LossCurve, loss: number): void {
  curve.newest.push(loss);
  if (curve.newest.length < curve.stepsPerPoint) return;
  curve.points.push(mean(curve.newest));
  curve.newest = [];
  if (curve.points.length < MOST_POINTS) return;
  curve.points = Array.from({ length: MOST_POINTS / 2 }, (_, i) =>
    mean(curve.points.slice(2 * i, 2 * i + 2)),
  );
  curve.stepsPerPoint *= 2;
}

/** Losses at steps. */
export const stepsOf = ({ stepsPerPoint, points }: LossCurve): Curve['points'] =>
  points.map((loss, i) => [(i + 1) * stepsPerPoint, loss] as const);

/** Leaves `NAME/curve.json` in the folder of a run: losses at steps or at epochs. */
export const writeCurve = (folder: string, curve: Curve): void =>
  new RunFolder(path.join(folder, curve.name)).write('curve', curve);

/** Undefined for a training from before curves were kept. */
export const readCurve = (folder: string, name: string): Curve | undefined =>
  new RunFolder(path.join(folder, name)).read<Curve>('curve');
