// JSON of npm run bench -> one HTML page: roofline plots, tables, the roofs. No other files, no scripts.
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { escapeText, logPlot, metric } from './plot.mjs';

const style = `
:root { color-scheme: light dark; --page: #fff; --text: #1d2129; --soft: #5d6675; --line: #dfe3e8; --roof: #6b7482;
  --c0: #0b6bb8; --c1: #c8500a; --c2: #12805c; --c3: #a2438c; --c4: #96690a; --c5: #4650b5; --bar: #0b6bb833; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --text: #e4e7ec; --soft: #9aa4b2; --line: #2d333c;
  --roof: #939dab; --c0: #5cb0f2; --c1: #f08c4e; --c2: #46c59a; --c3: #de8acb; --c4: #dcb04a; --c5: #9aa4f5; --bar: #5cb0f244; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
p, dt { color: var(--soft); } dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dd { margin: 0; }
svg { width: 100%; height: auto; } svg text { fill: var(--text); font-size: 13px; } svg .label { fill: var(--soft); font-size: 12px;
  paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
.grid { stroke: var(--line); } .roof { stroke: var(--roof); stroke-width: 1.5; fill: none; stroke-dasharray: 6 4; }
${[0, 1, 2, 3, 4, 5].map((i) => `.s${i} { fill: var(--c${i}); }`).join(' ')}
svg g { fill-opacity: .8; stroke: var(--page); stroke-width: 1; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } .left { text-align: left; }
.bar { background: linear-gradient(90deg, var(--bar) var(--share), transparent 0); min-width: 6rem; }
`;

/** Thousands separated, two decimals below 100. */
const micros = (value) =>
  value.toLocaleString('en', { maximumFractionDigits: value < 100 ? 2 : 0 });
const rate = (result) => (result.operations / result.median_us) * 1e6;

/** Series of a roofline: what computes alike gets one colour and shape. */
function seriesName({ op, algorithm }) {
  const kernel = /^matmul_(\w+?)_(\w+)$/.exec(algorithm);
  return kernel
    ? `matmul ${kernel[1]}, ${kernel[2]}`
    : op === 'prompt' || op === 'decode'
      ? 'whole model'
      : 'other operators';
}

/** One roofline for a thread count: operations a second over operations a byte. */
function roofline(report, threads) {
  const results = report.results.filter(
    (result) => result.threads === threads && result.operations > 0,
  );
  if (results.length === 0) return '';
  const { read, multiply } = report.roofs;
  const points = results.map((result) => ({
    result,
    x: result.operations / result.bytes,
    y: rate(result),
  }));
  const reads = read.filter((roof) => roof.threads === threads);
  const multiplies = multiply.filter((roof) => roof.threads === threads);
  const decade = (value, round) => 10 ** round(Math.log10(value));
  const low = decade(Math.min(...points.map((point) => point.x)), Math.floor);
  const high = decade(Math.max(10, ...points.map((point) => point.x)), Math.ceil);
  const top = Math.max(
    ...multiplies.map((roof) => roof.operations_per_second),
    ...points.map((point) => point.y),
  );
  const bottom = decade(Math.min(...points.map((point) => point.y)), Math.floor);
  const lines = [];
  for (const roof of reads) {
    const speed = roof.bytes_per_second;
    // From the left or bottom edge to the highest roof.
    const start = Math.max(low, bottom / speed);
    const end = Math.min(high, top / speed);
    if (end <= start) continue;
    lines.push({
      slope: true,
      label: `${roof.level} ${metric(speed)}B/s`,
      points: [
        [start, start * speed],
        [end, end * speed],
      ],
    });
  }
  const fastest = Math.max(...reads.map((roof) => roof.bytes_per_second), 1);
  for (const roof of multiplies) {
    const speed = roof.operations_per_second;
    const start = Math.max(low, speed / fastest);
    if (start < high)
      lines.push({
        label: `${roof.name} ${metric(speed)}op/s`,
        points: [
          [start, speed],
          [high, speed],
        ],
      });
  }
  const names = [...new Set(results.map(seriesName))].sort();
  const series = names.map((name) => ({
    name,
    points: points
      .filter((point) => seriesName(point.result) === name)
      .map(({ x, y, result }) => ({
        x,
        y,
        title: `${result.op} ${result.format} ${result.case} M=${result.m}, ${result.isa}: ${micros(result.median_us)} us, ${metric(y)}op/s, ${(100 * result.floor_ratio).toFixed(0)}% of the limit`,
      })),
  }));
  const title = `Roofline, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
  return `<h2>${title}</h2>${logPlot({
    title,
    lines,
    series,
    x: { label: 'operations per byte', low, high },
    y: { label: 'operations per second', low: bottom, high: decade(top, Math.ceil) },
  })}`;
}

/** A table; the first two columns are words. A cell is text, a number, or { html } of a whole cell. */
function table(head, rows) {
  const cell = (tag) => (content, column) =>
    typeof content === 'object'
      ? content.html
      : `<${tag}${column < 2 ? ' class="left"' : ''}>${escapeText(content)}</${tag}>`;
  const line = (cells, tag) => `<tr>${cells.map(cell(tag)).join('')}</tr>`;
  const body = rows.map((row) => line(row, 'td')).join('\n');
  return `<div class="wide"><table><thead>${line(head, 'th')}</thead><tbody>${body}</tbody></table></div>`;
}

/** A cell with a bar as long as the share. */
const share = (value) => ({
  html: `<td class="bar" style="--share: ${Math.min(100, value * 100).toFixed(1)}%">${value.toFixed(2)}</td>`,
});

function resultTable(results) {
  const peers = results.some((result) => result.peer !== null);
  const head = [
    'case',
    'kernel',
    'ISA',
    'threads',
    'median \u00b5s',
    'p10',
    'p90',
    'floor \u00b5s',
    'floor / time',
    'bound',
    'error',
  ];
  if (peers) head.push('peer \u00b5s', 'peer / ours', 'peer');
  return table(
    head,
    results.map((result) => {
      const row = [
        `${result.format} ${result.case} M=${result.m}${result.cold ? ' cold' : ''}`,
        result.algorithm,
        result.isa,
        result.threads,
        micros(result.median_us),
        micros(result.p10_us),
        micros(result.p90_us),
        micros(result.floor_us),
        share(result.floor_ratio),
        result.bound,
        result.error.toExponential(1),
      ];
      if (peers && result.peer)
        row.push(
          micros(result.peer.median_us),
          result.peer.ratio.toFixed(2),
          `${result.peer.name} (${result.peer.version})`,
        );
      else if (peers) row.push('', '', '');
      return row;
    }),
  );
}

function roofTable({ read, multiply }) {
  const rows = [
    ...read.map((roof) => [
      `read ${roof.level}`,
      `${metric(roof.bytes)}B`,
      roof.threads,
      `${metric(roof.bytes_per_second)}B/s`,
      `${metric(roof.median)}B/s`,
    ]),
    ...multiply.map((roof) => [
      `multiply-add ${roof.name}`,
      roof.type,
      roof.threads,
      `${metric(roof.operations_per_second)}op/s`,
      `${metric(roof.median)}op/s`,
    ]),
  ];
  return table(['roof', 'of', 'threads', 'best round', 'median round'], rows);
}

/** The page as text. */
export function page(report) {
  const { machine, results } = report;
  const facts = {
    processor: `${machine.architecture}, ${machine.features.join(' ')}`,
    caches: Object.entries(machine.caches)
      .map(([level, bytes]) => `${level} ${bytes / 1024} KB`)
      .join(', '),
    'best ISA level': machine.isa,
    threads: machine.threads,
    'load before the run': machine.load_average.toFixed(1),
    date: report.date,
    commit: report.commit,
    bitloom: machine.bitloom,
    node: machine.node,
  };
  const operators = [...new Set(results.map((result) => result.op))];
  const threads = [...new Set(results.map((result) => result.threads))];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>bitloom bench</title><style>${style}</style></head><body>
<h1>bitloom bench</h1>
<p>Medians of kernel times. The floor is the time that the least bytes and operations of a case take at the speeds this machine
reached in the same run; floor / time is 1 at the limit. M: rows of activations. Cold: weights come from memory, not from a cache.</p>
<dl>${Object.entries(facts)
    .map(([name, value]) => `<dt>${escapeText(name)}</dt><dd>${escapeText(value)}</dd>`)
    .join('')}</dl>
${threads.map((count) => roofline(report, count)).join('\n')}
${operators.map((op) => `<h2>${escapeText(op)}</h2>${resultTable(results.filter((result) => result.op === op))}`).join('\n')}
<h2>Roofs</h2><p>The best of many short rounds is the roof; the median tells how busy the machine was.</p>${roofTable(report.roofs)}
</body></html>
`;
}

/** Writes {@link page} to a file. */
export function writeReport(file, report) {
  writeFileSync(file, page(report));
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [json, html] = process.argv.slice(2);
  if (html === undefined) {
    console.error('usage: node bench/report.mjs results.json report.html');
    process.exitCode = 1;
  } else {
    writeReport(html, JSON.parse(readFileSync(json, 'utf8')));
  }
}
