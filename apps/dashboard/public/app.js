// Draws the history that /api/history gives and every point that /api/stream adds. No build step.
import uPlot from '/uPlot.js';

const KEEP_POINTS = 900;
const COLORS = ['#2a7de1', '#e08a1e', '#27a567', '#c2499d', '#8a63d2', '#c0392b', '#17a2b8', '#7f8c3a'];
/** The order in which a record meets the stages, and what each box tells beside its rate. */
const FLOW = [
  ['simulator', 'events made', []],
  ['replay', 'rows replayed', []],
  ['sample-assembler', 'samples joined', ['open_exposures', 'waiting_events', 'late_events']],
  ['live-sid-updater', 'SIDs published', ['live_rooms', 'live_sids_recomputed']],
  ['trainer-retriever', 'samples trained', ['training_steps', 'loss']],
  ['trainer-ranker', 'samples trained', ['training_steps', 'loss']],
  ['retriever', 'rollouts', ['trie_sids', 'http_requests']],
  ['reward-scorer', 'groups scored', []],
  ['metrics-sink', 'rows in ClickHouse', []],
  ['job-runner', 'jobs done', []],
];
const CHARTS = [
  {
    title: 'Records per second',
    unit: '/s',
    lines: (s) =>
      pick(s, (x) => x.outPerS, [
        'simulator',
        'replay',
        'sample-assembler',
        'trainer-retriever',
        'retriever',
        'reward-scorer',
      ]),
  },
  {
    title: 'Training loss, predicted before trained',
    unit: '',
    lines: (s) => value(s, { 'trainer-retriever': ['loss'] }),
  },
  {
    title: 'SID accuracy at 1 by level',
    unit: '',
    lines: (s) => value(s, { 'trainer-retriever': ['sid_accuracy_1', 'sid_accuracy_2', 'sid_accuracy_3'] }),
  },
  {
    title: 'SID accuracy at 1 among existing SIDs',
    unit: '',
    lines: (s) =>
      value(s, {
        'trainer-retriever': ['sid_accuracy_masked_1', 'sid_accuracy_masked_2', 'sid_accuracy_masked_3'],
      }),
  },
  {
    title: 'Latency p99 by stage',
    unit: 'ms',
    lines: (s) =>
      pick(s, (x) => x.p99Ms, [
        'sample-assembler',
        'live-sid-updater',
        'trainer-retriever',
        'reward-scorer',
        'metrics-sink',
      ]),
  },
  {
    title: 'Lag by stage',
    unit: 'records',
    lines: (s) =>
      pick(s, (x) => x.lag, [
        'sample-assembler',
        'trainer-retriever',
        'trainer-ranker',
        'reward-scorer',
        'metrics-sink',
      ]),
  },
  {
    title: 'Memory by process',
    unit: 'MB',
    lines: (s) => pick(s, (x) => x.rssBytes.map((b) => (b === null ? null : b / 1e6)), Object.keys(s)),
  },
];

const $ = (id) => document.getElementById(id);
const el = (name, attributes = {}, ...children) => {
  const node = Object.assign(document.createElement(name), attributes);
  node.append(...children);
  return node;
};
const number = (x, digits = 0) =>
  x === null || x === undefined ? '–' : x.toLocaleString('en', { maximumFractionDigits: digits });
const pick = (services, read, names) => names.filter((n) => services[n]).map((n) => [n, read(services[n])]);
const order = (name) => (FLOW.findIndex(([stage]) => stage === name) + FLOW.length + 1) % (FLOW.length + 1);
const value = (services, wanted) =>
  Object.entries(wanted).flatMap(([name, keys]) =>
    keys
      .filter((k) => services[name]?.values[k])
      .map((k) => [k.replaceAll('_', ' '), services[name].values[k]]),
  );

/** A color of the style sheet as the canvas needs it: light or dark is already chosen. */
function colorOf(property) {
  const probe = el('span');
  probe.style.color = `var(${property})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

let series = { atS: [], services: {} };
const plots = CHARTS.map((chart) => {
  const box = el(
    'div',
    { className: 'chart' },
    el('h2', { textContent: chart.unit ? `${chart.title} (${chart.unit})` : chart.title }),
  );
  $('charts').append(box);
  return { chart, box, plot: null, names: '' };
});

const clockTime = (seconds) =>
  new Date(seconds * 1000).toLocaleTimeString([], {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hour12: false,
  });

function drawCharts() {
  const ink = colorOf('--quiet');
  const grid = colorOf('--line');
  for (const entry of plots) {
    const lines = entry.chart.lines(series.services);
    const data = [series.atS, ...lines.map(([, points]) => points)];
    const names = lines.map(([name]) => name).join();
    if (entry.plot && entry.names === names) {
      entry.plot.setData(data);
      continue;
    }
    entry.plot?.destroy();
    entry.names = names;
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid } };
    const options = {
      width: Math.max(260, entry.box.clientWidth - 26),
      height: 190,
      series: [
        {},
        ...lines.map(([label], i) => ({
          label,
          stroke: COLORS[i % COLORS.length],
          width: 1.5,
          spanGaps: true,
          value: (_, v) => number(v, 3),
        })),
      ],
      // the time alone, and room for it: a date below it, or the next time beside it, runs into its neighbour in a box this narrow
      axes: [
        { ...axis, space: 76, values: (_, ticks) => ticks.map(clockTime) },
        { ...axis, size: 60 },
      ],
      cursor: { sync: { key: 'time' } },
    };
    entry.plot = new uPlot(options, data, entry.box);
  }
}

function drawNow(now) {
  const services = now?.services ?? {};
  const rate = (name) => series.services[name]?.outPerS.slice(-5).filter((x) => x !== null) ?? [];
  const mean = (list) => (list.length ? list.reduce((a, b) => a + b, 0) / list.length : null);
  $('flow').replaceChildren(
    ...FLOW.filter(([name]) => services[name] || series.services[name]).map(([name, what, keys]) => {
      const s = services[name];
      const details = keys
        .filter((k) => s?.values[k] !== undefined)
        .map((k) => `${k.replaceAll('_', ' ')} ${number(s.values[k], 3)}`);
      return el(
        'div',
        { className: `stage ${s ? s.state : 'down'}` },
        el('h3', { textContent: name }),
        el('div', { className: 'big', textContent: s ? number(s.out) : 'down' }),
        el('div', { className: 'quiet', textContent: `${what}, ${number(mean(rate(name)), 1)}/s` }),
        ...(details.length ? [el('div', { className: 'quiet', textContent: details.join(' · ') })] : []),
      );
    }),
  );
  const head = [
    'stage',
    'state',
    'in',
    'out',
    'p50 ms',
    'p99 ms',
    'lag',
    'dead letters',
    'memory MB',
    'up s',
  ];
  $('stages').replaceChildren(
    el('thead', {}, el('tr', {}, ...head.map((h) => el('th', { textContent: h })))),
    el(
      'tbody',
      {},
      ...Object.entries(services)
        .sort(([a], [b]) => order(a) - order(b))
        .map(([name, s]) =>
          el(
            'tr',
            {},
            ...[
              name,
              s.state,
              number(s.in),
              number(s.out),
              number(s.p50Ms, 1),
              number(s.p99Ms, 1),
              number(s.lag),
              number(s.deadLetters),
              number(s.rssBytes / 1e6),
              number(s.upSeconds),
            ].map((textContent) => el('td', { textContent })),
          ),
        ),
    ),
  );
  const trainer = services['trainer-retriever'];
  const events = (services.simulator ?? services.replay)?.out;
  const dead = Object.values(services).reduce((sum, s) => sum + s.deadLetters, 0);
  $('headline').textContent = [
    events !== undefined && `${number(events)} events in`,
    services['sample-assembler'] && `${number(services['sample-assembler'].out)} samples out`,
    trainer?.values.training_steps !== undefined &&
      `${number(trainer.values.training_steps)} training steps, loss ${number(trainer.values.loss, 3)}`,
    `${number(dead)} dead letters`,
  ]
    .filter(Boolean)
    .join(' · ');
}

const COLUMNS = ['inPerS', 'outPerS', 'p50Ms', 'p99Ms', 'lag', 'rssBytes'];

/** Adds points to the kept series; a service or value seen for the first time gets nulls for the time before. */
function append(more) {
  const before = series.atS.length;
  const blank = () => Array(before).fill(null);
  const grow = (kept, points) => {
    kept.push(...(points ?? more.atS.map(() => null)));
    while (kept.length > KEEP_POINTS) kept.shift();
  };
  for (const name of new Set([...Object.keys(series.services), ...Object.keys(more.services)])) {
    series.services[name] ??= { ...Object.fromEntries(COLUMNS.map((c) => [c, blank()])), values: {} };
    const target = series.services[name];
    const source = more.services[name];
    for (const column of COLUMNS) grow(target[column], source?.[column]);
    for (const key of new Set([...Object.keys(target.values), ...Object.keys(source?.values ?? {})])) {
      target.values[key] ??= blank();
      grow(target.values[key], source?.values[key]);
    }
  }
  grow(series.atS, more.atS);
}

async function showQueries() {
  const queries = await (await fetch('/api/queries')).json();
  $('query-names').replaceChildren(
    ...queries.map((q) => {
      const button = el('button', { type: 'button', textContent: q.name });
      button.setAttribute('aria-pressed', 'false');
      button.addEventListener('click', async () => {
        for (const other of $('query-names').children)
          other.setAttribute('aria-pressed', String(other === button));
        $('query-about').textContent = q.about;
        const response = await fetch(`/api/queries/${q.name}`);
        const text = await response.text();
        if (!response.ok) return $('query-result').replaceChildren(el('caption', { textContent: text }));
        const { meta, data } = JSON.parse(text);
        const textual = meta.map((m) => !/^(Nullable\()?(U?Int|Float)/.test(m.type));
        const cell = (tag) => (content, c) =>
          el(tag, {
            textContent: content !== null && typeof content === 'object' ? JSON.stringify(content) : content,
            className: textual[c] ? 'text' : '',
          });
        $('query-result').replaceChildren(
          el('thead', {}, el('tr', {}, ...meta.map((m, c) => cell('th')(m.name, c)))),
          el(
            'tbody',
            {},
            ...(data.length
              ? data.map((row) => el('tr', {}, ...row.map(cell('td'))))
              : [el('tr', {}, el('td', { textContent: 'No rows yet.' }))]),
          ),
        );
      });
      return button;
    }),
  );
}

const first = await (await fetch('/api/history')).json();
series = first.points;
drawNow(first.now);
drawCharts();
await showQueries();
new EventSource('/api/stream').onmessage = (event) => {
  const { points, now } = JSON.parse(event.data);
  append(points);
  drawNow(now);
  drawCharts();
};
addEventListener('resize', () => {
  for (const { plot, box } of plots)
    plot?.setSize({ width: Math.max(260, box.clientWidth - 26), height: 190 });
});
