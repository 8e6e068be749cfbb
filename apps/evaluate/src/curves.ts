/** Training curves as a picture that any browser shows: SVG without a library. */

export interface Curve {
  name: string;
  /** Of one seed each; x ascending. */
  points: readonly (readonly [number, number])[];
}

const WIDTH = 720;
const HEIGHT = 420;
const LEFT = 64;
const RIGHT = 200;
const TOP = 40;
const BOTTOM = 48;
/** Okabe and Ito 2008: told apart by people who do not see all colours. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#f0e442', '#000000'];

/** Curves of one name share a colour. */
export function curvesSvg(title: string, axes: { x: string; y: string }, curves: readonly Curve[]): string {
  const drawn = curves.filter((c) => c.points.length > 0);
  const names = [...new Set(drawn.map((c) => c.name))];
  const xs = drawn.flatMap((c) => c.points.map((p) => p[0]));
  const ys = drawn.flatMap((c) => c.points.map((p) => p[1]));
  const [x0, x1] = range(xs, Math.min(0, ...xs));
  const [y0, y1] = range(ys, Math.min(...ys));
  const x = (value: number): number => LEFT + ((value - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value: number): number => HEIGHT - BOTTOM - ((value - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${LEFT}" y="22" font-size="15">${escaped(title)}</text>`,
  ];
  for (const tick of ticks(x0, x1))
    parts.push(
      `<line x1="${at(x(tick))}" y1="${TOP}" x2="${at(x(tick))}" y2="${HEIGHT - BOTTOM}" stroke="#ddd"/>`,
      `<text x="${at(x(tick))}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${label(tick)}</text>`,
    );
  for (const tick of ticks(y0, y1))
    parts.push(
      `<line x1="${LEFT}" y1="${at(y(tick))}" x2="${WIDTH - RIGHT}" y2="${at(y(tick))}" stroke="#ddd"/>`,
      `<text x="${LEFT - 6}" y="${at(y(tick) + 4)}" text-anchor="end">${label(tick)}</text>`,
    );
  parts.push(
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 10}" text-anchor="middle">${escaped(axes.x)}</text>`,
    `<text x="16" y="${HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 ${HEIGHT / 2})">${escaped(axes.y)}</text>`,
  );
  for (const { name, points } of drawn) {
    const line = points.map(([px, py]) => `${at(x(px))},${at(y(py))}`).join(' ');
    const colour = COLOURS[names.indexOf(name) % COLOURS.length];
    parts.push(`<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="1.6"/>`);
  }
  names.forEach((name, i) => {
    const row = TOP + 8 + i * 18;
    parts.push(
      `<line x1="${WIDTH - RIGHT + 14}" y1="${row}" x2="${WIDTH - RIGHT + 34}" y2="${row}" stroke="${COLOURS[i % COLOURS.length]}" stroke-width="3"/>`,
      `<text x="${WIDTH - RIGHT + 40}" y="${row + 4}">${escaped(name)}</text>`,
    );
  });
  parts.push('</svg>');
  return `${parts.join('\n')}\n`;
}

function range(values: readonly number[], least: number): [number, number] {
  const most = Math.max(...values);
  if (!Number.isFinite(least) || !Number.isFinite(most)) return [0, 1];
  return most > least ? [least, most] : [least, least + 1];
}

/** Four to ten round numbers within [from, to]. */
export function ticks(from: number, to: number): number[] {
  const rough = (to - from) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough)!;
  const first = Math.ceil(from / step - 1e-9);
  const count = Math.floor(to / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => (first + i) * step);
}

const at = (value: number): string => value.toFixed(1);
const label = (value: number): string => String(Number(value.toPrecision(4)));
const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
