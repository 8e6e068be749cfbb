/** Training losses of the models of a run in one picture. */
import { type Curve, curvesSvg } from '../../curves.ts';

/** Each over the whole of its own training. The losses are not of one kind: OneMall's and TIGER's are of all codes of an item, SASRec's is of the item among drawn ones. */
export const lossPicture = (curves: readonly Curve[]): string =>
  curvesSvg(
    "Training loss, each model's own",
    { x: 'part of the training, %', y: 'loss, nats' },
    curves.map(({ name, points }) => {
      const end = points.at(-1)?.[0] ?? 1;
      return { name, points: points.map(([at, loss]) => [(100 * at) / end, loss] as const) };
    }),
  );
