// A small SVG writer: one plot with two logarithmic axes, lines, points and a legend. Colours come from
// CSS variables of the page (bench/report.mjs), so that one drawing serves light and dark.

const width = 860;
const height = 440;
const frame = { left: 76, right: width - 24, top: 20, bottom: height - 56 };

export const escapeText = (text) =>
  String(text).replace(
    /[&<>"]/g,
    (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c],
  );

/** Three significant digits with a metric prefix: 1.23 G. */
export function metric(value) {
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P'];
  const step = Math.min(
    Math.max(Math.floor(Math.log10(Math.max(value, 1e-12)) / 3), 0),
    prefixes.length - 1,
  );
  return `${Number((value / 1000 ** step).toPrecision(3))}${step > 0 ? ` ${prefixes[step]}` : ''}`;
}

/** Position of a value on a logarithmic axis that spans [from, to] in pixels. */
function axis(low, high, from, to) {
  const scale = (to - from) / (Math.log10(high) - Math.log10(low));
  return { low, high, at: (value) => from + (Math.log10(value) - Math.log10(low)) * scale };
}

const decades = ({ low, high }) => {
  const list = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * 1.000001; power++)
    list.push(10 ** power);
  return list;
};

const text = (x, y, content, more = '') =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escapeText(content)}</text>`;

const shapes = [
  (x, y) => `<circle cx="${x}" cy="${y}" r="4.5"/>`,
  (x, y) => `<rect x="${x - 4}" y="${y - 4}" width="8" height="8"/>`,
  (x, y) => `<path d="M${x} ${y - 5.5}l5 9.5h-10z"/>`,
  (x, y) => `<path d="M${x} ${y - 6}l6 6-6 6-6-6z"/>`,
  (x, y) => `<path d="M${x} ${y + 5.5}l5-9.5h-10z"/>`,
];

/** A point of series number `index`, in its colour and shape. */
function mark(index, x, y, title = '') {
  const shape = shapes[index % shapes.length](Number(x.toFixed(1)), Number(y.toFixed(1)));
  return `<g class="s${index % 6}">${title === '' ? '' : `<title>${escapeText(title)}</title>`}${shape}</g>`;
}

/**
 * @param plot { x: { label, low, high, unit }, y: { same }, lines: [{ points: [[x, y], ...], label,
 *   anchor: 'start' | 'end', slope: true for a line of slope 1 }], series: [{ name, points: [{ x, y, title }] }], title }
 */
export function logPlot({ title, x, y, lines, series }) {
  const across = axis(x.low, x.high, frame.left, frame.right);
  const up = axis(y.low, y.high, frame.bottom, frame.top);
  const parts = [
    `<svg viewBox="0 0 ${width} ${height + 26 * Math.ceil(series.length / 4)}" role="img" aria-label="${escapeText(title)}">`,
  ];
  for (const value of decades(across)) {
    const at = across.at(value).toFixed(1);
    parts.push(`<path class="grid" d="M${at} ${frame.top}V${frame.bottom}"/>`);
    parts.push(
      text(
        across.at(value),
        frame.bottom + 20,
        `${value < 1 ? value : metric(value)}`,
        'text-anchor="middle"',
      ),
    );
  }
  for (const value of decades(up)) {
    parts.push(`<path class="grid" d="M${frame.left} ${up.at(value).toFixed(1)}H${frame.right}"/>`);
    parts.push(text(frame.left - 8, up.at(value) + 4, metric(value), 'text-anchor="end"'));
  }
  const middle = (frame.top + frame.bottom) / 2;
  parts.push(text((frame.left + frame.right) / 2, height - 14, x.label, 'text-anchor="middle"'));
  parts.push(
    text(0, 0, y.label, `text-anchor="middle" transform="translate(18 ${middle}) rotate(-90)"`),
  );
  for (const [index, { points, label, slope }] of lines.entries()) {
    const ends = points.map(([a, b]) => [across.at(a), up.at(b)]);
    parts.push(
      `<path class="roof" d="M${ends.map((end) => end.map((v) => v.toFixed(1)).join(' ')).join('L')}"/>`,
    );
    const [first, last] = [ends[0], ends.at(-1)];
    if (slope) {
      // Each label further along than the one before: parallel lines may lie close together.
      const angle = Math.atan2(last[1] - first[1], last[0] - first[0]);
      const along = Math.min(
        10 + index * 125,
        Math.max(10, Math.hypot(last[0] - first[0], last[1] - first[1]) - 125),
      );
      const [left, top] = [
        first[0] + along * Math.cos(angle),
        first[1] + along * Math.sin(angle) - 6,
      ];
      const place = `translate(${left.toFixed(1)} ${top.toFixed(1)}) rotate(${((angle * 180) / Math.PI).toFixed(1)})`;
      parts.push(text(0, 0, label, `class="label" transform="${place}"`));
    } else {
      parts.push(text(last[0] - 4, last[1] - 6, label, 'class="label" text-anchor="end"'));
    }
  }
  for (const [index, { points }] of series.entries()) {
    for (const point of points)
      parts.push(mark(index, across.at(point.x), up.at(point.y), point.title));
  }
  for (const [index, { name }] of series.entries()) {
    const left = frame.left + (index % 4) * 195;
    const top = height + 6 + 26 * Math.floor(index / 4);
    parts.push(mark(index, left + 6, top), text(left + 18, top + 4, name));
  }
  return `${parts.join('\n')}\n</svg>`;
}
