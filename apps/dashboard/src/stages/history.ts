/** The recent past of every service as columns, ready for charts. */
import type { StageStatus } from '@onemall/service-kit';

export interface Point {
  atMs: number;
  services: Record<string, StageStatus>;
}

export interface ServiceSeries {
  inPerS: (number | null)[];
  outPerS: (number | null)[];
  p50Ms: (number | null)[];
  p99Ms: (number | null)[];
  lag: (number | null)[];
  rssBytes: (number | null)[];
  values: Record<string, (number | null)[]>;
}
export interface Series {
  atS: number[];
  services: Record<string, ServiceSeries>;
}

/** Keeps the newest `capacity` points. */
export class History {
  #points: Point[] = [];
  readonly capacity: number;
  constructor(capacity: number) {
    this.capacity = capacity;
  }
  add(point: Point): void {
    this.#points.push(point);
    if (this.#points.length > this.capacity) this.#points.shift();
  }
  latest(): Point | undefined {
    return this.#points.at(-1);
  }
  series(): Series {
    return toSeries(this.#points);
  }
  latestSeries(): Series {
    return dropFirst(toSeries(this.#points.slice(-2)), this.#points.length > 1);
  }
}

/**
 * Rates per second from counters. A counter that fell means a restarted service: its rate begins again from zero.
 */
export function toSeries(points: readonly Point[]): Series {
  const names = [...new Set(points.flatMap((p) => Object.keys(p.services)))].sort();
  const services: Record<string, ServiceSeries> = {};
  for (const name of names) {
    const at = points.map((p) => p.services[name]);
    const valueNames = [...new Set(at.flatMap((s) => Object.keys(s?.values ?? {})))].sort();
    services[name] = {
      inPerS: at.map((s, i) => rate(points, name, i, s?.in, (x) => x.in)),
      outPerS: at.map((s, i) => rate(points, name, i, s?.out, (x) => x.out)),
      p50Ms: at.map((s) => s?.p50Ms ?? null),
      p99Ms: at.map((s) => s?.p99Ms ?? null),
      lag: at.map((s) => s?.lag ?? null),
      rssBytes: at.map((s) => s?.rssBytes ?? null),
      values: Object.fromEntries(valueNames.map((v) => [v, at.map((s) => s?.values[v] ?? null)])),
    };
  }
  return { atS: points.map((p) => p.atMs / 1000), services };
}

function rate(
  points: readonly Point[],
  name: string,
  i: number,
  now: number | undefined,
  read: (s: StageStatus) => number,
): number | null {
  const before = points[i - 1]?.services[name];
  if (now === undefined || before === undefined) return null;
  const seconds = (points[i]!.atMs - points[i - 1]!.atMs) / 1000;
  const grown = now - read(before);
  return seconds > 0 && grown >= 0 ? grown / seconds : null;
}

function dropFirst(series: Series, drop: boolean): Series {
  if (!drop) return series;
  const tail = <T>(list: T[]): T[] => list.slice(1);
  return {
    atS: tail(series.atS),
    services: Object.fromEntries(
      Object.entries(series.services).map(([name, s]) => [
        name,
        {
          inPerS: tail(s.inPerS),
          outPerS: tail(s.outPerS),
          p50Ms: tail(s.p50Ms),
          p99Ms: tail(s.p99Ms),
          lag: tail(s.lag),
          rssBytes: tail(s.rssBytes),
          values: Object.fromEntries(Object.entries(s.values).map(([k, v]) => [k, tail(v)])),
        },
      ]),
    ),
  };
}
