// The two charts of a pipeline, drawn by Chart.js: the layers on one time line, and the rate.

/* global Chart */
import { moment, stretch } from "./format.js";

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const STEPS = [
  SECOND, 5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY,
];
const MONTHS = [1, 2, 3, 6, 12, 24, 60, 120, 600];
const LABEL_PX = 88;
const LANES = ["Batch layer", "Speed layer"];

const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);

/** What a colour of the style sheet is just now, in light or in dark. */
function ink(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Round moments (UTC) between two, at most `most` of them; and how each is written. */
export function ticks(first, last, most) {
  const step = STEPS.find((size) => (last - first) / size <= most);
  if (step) {
    const start = Math.ceil(first / step) * step;
    const found = [];
    for (let at = start; at <= last; at += step) found.push(at);
    return { at: found, text: (at) => text(at, step) };
  }
  const months = MONTHS.find((size) => (last - first) / (size * 30 * DAY) <= most) ?? MONTHS.at(-1);
  const start = new Date(first);
  const found = [];
  for (let n = Math.floor((start.getUTCFullYear() * 12 + start.getUTCMonth()) / months) * months; ; n += months) {
    const at = Date.UTC(Math.floor(n / 12), n % 12);
    if (at > last) break;
    if (at >= first) found.push(at);
  }
  return { at: found, text: (at) => new Date(at).toISOString().slice(0, months < 12 ? 7 : 4) };
}

function text(at, step) {
  const iso = new Date(at).toISOString();
  if (step >= DAY || at % DAY === 0) return iso.slice(0, 10);
  return iso.slice(11, step < MINUTE ? 19 : 16);
}

function timeAxis(options = {}) {
  return {
    type: "linear",
    afterBuildTicks: (scale) => {
      const made = ticks(scale.min, scale.max, Math.max(2, Math.floor(scale.width / LABEL_PX)));
      scale.ticks = made.at.map((value) => ({ value }));
      scale.options.ticks.callback = made.text;
    },
    grid: { color: ink("line"), drawTicks: false },
    border: { display: false },
    ticks: { color: ink("quiet"), maxRotation: 0, autoSkip: false, padding: 6 },
    ...options,
  };
}

const still = { animation: false, responsive: true, maintainAspectRatio: false, resizeDelay: 50 };

/** Where the line begins and ends, and whether now lies so far off that it would squeeze all else. */
export function reach(layers, now) {
  const ends = [layers.batch_log, layers.stream_log, layers.events].flatMap(({ extent }) => (extent ? [extent.first, extent.last] : []));
  const times = [...ends, layers.boundary, layers.sealed_through].filter(Boolean).map((iso) => Date.parse(iso));
  if (!times.length) return null;
  const first = Math.min(...times), last = Math.max(...times);
  const span = Math.max(last - first, MINUTE);
  const off = now - last > span / 2;
  return { first: first - span * 0.01, last: (off ? last : Math.max(last, now)) + span * 0.03, off, late: now - last };
}

/** The bars of one lane: what it holds (pale), and what of it the live views show (solid). */
function bars(layers) {
  const of = (extent) => (extent ? [Date.parse(extent.first), Date.parse(extent.last)] : null);
  const sealed = layers.sealed_through && Date.parse(layers.sealed_through);
  const [events, stream] = [of(layers.events.extent), of(layers.stream_log.extent)];
  return {
    holds: [of(layers.batch_log.extent), stream],
    answers: [
      sealed && events && events[0] < sealed ? [events[0], sealed] : null,
      stream && stream[1] > (sealed || 0) ? [Math.max(stream[0], sealed || 0), stream[1]] : null,
    ],
  };
}

const ROW_PX = 14;
const LANE_NAMES_PX = 96;

/** Where each name stands: {name, color, left, row}, from the left edge to `width`. `xOf` gives a line's place. */
function placed(lines, aside, width, xOf, widthOf) {
  const ends = [];
  const names = [...lines.map((line) => ({ ...line, x: xOf(line.at) })), ...(aside ? [{ name: aside, color: "quiet", x: width }] : [])];
  return names.map(({ name, color, x }) => {
    const size = widthOf(name);
    const left = Math.min(Math.max(x - size / 2, 0), width - size);
    let row = ends.findIndex((end) => left > end + 8);
    if (row < 0) row = ends.length;
    ends[row] = left + size;
    return { name, color, left, row };
  });
}

const font = () => `500 11px ${Chart.defaults.font.family}`;

/** Rows that the names need, before the chart is laid out: as good as the width of the lanes' names is known. */
function rowsNeeded(canvas, { lines, aside }, reached) {
  const ctx = canvas.getContext("2d");
  const width = canvas.parentNode.clientWidth - LANE_NAMES_PX;
  ctx.save();
  ctx.font = font();
  const xOf = (at) => (width * (at - reached.first)) / (reached.last - reached.first);
  const names = placed(lines, aside, width, xOf, (name) => ctx.measureText(name).width);
  ctx.restore();
  return Math.max(0, ...names.map(({ row }) => row + 1));
}

const marks = {
  id: "marks",
  afterDatasetsDraw({ ctx, chartArea: area, scales }, _, { lines = [], aside = "" }) {
    const xOf = (at) => scales.x.getPixelForValue(at) - area.left;
    ctx.save();
    ctx.font = font();
    for (const { at, color, dash } of lines) {
      ctx.strokeStyle = ink(color);
      ctx.lineWidth = 1.5;
      ctx.setLineDash(dash);
      ctx.beginPath();
      ctx.moveTo(area.left + xOf(at), area.top - 3);
      ctx.lineTo(area.left + xOf(at), area.bottom);
      ctx.stroke();
    }
    for (const { name, color, left, row } of placed(lines, aside, area.width, xOf, (text) => ctx.measureText(text).width)) {
      ctx.fillStyle = ink(color);
      ctx.fillText(name, area.left + left, area.top - 8 - ROW_PX * row);
    }
    ctx.restore();
  },
};

function lines(layers, speed, now, off) {
  const found = [
    { at: layers.sealed_through, name: "sealed", color: "batch", dash: [] },
    { at: layers.boundary, name: "boundary", color: "ink", dash: [5, 3] },
    { at: speed.watermark, name: "watermark", color: "stream", dash: [2, 3] },
    { at: off ? null : now, name: "now", color: "bad", dash: [] },
  ];
  return found.filter(({ at }) => at).map((line) => ({ ...line, at: Date.parse(line.at) })).sort((a, b) => a.at - b.at);
}

/** The time line on a canvas; `update` draws it anew. */
export function timeline(canvas) {
  let chart = null;
  return {
    update(layers, speed, now) {
      const reached = reach(layers, Date.parse(now));
      if (!reached) return;
      const { holds, answers } = bars(layers);
      const drawn = {
        lines: lines(layers, speed, now, reached.off),
        aside: reached.off ? `now is ${stretch(reached.late / 1000)} later →` : "",
      };
      const paint = (solid) => ["batch", "stream"].map((name) => ink(solid ? name : `${name}-pale`));
      const options = {
        ...still,
        indexAxis: "y",
        layout: { padding: { top: 8 + ROW_PX * rowsNeeded(canvas, drawn, reached), right: 4 } },
        scales: {
          x: timeAxis({ min: reached.first, max: reached.last }),
          y: { grid: { display: false }, border: { display: false }, ticks: { color: ink("ink"), padding: 4 } },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            callbacks: {
              label: ({ dataset, raw }) => `${dataset.label} ${raw.map((at) => moment(new Date(at).toISOString())).join(" to ")}`,
            },
          },
          marks: drawn,
        },
      };
      const data = {
        labels: LANES,
        datasets: [
          { label: "in live views", data: answers, backgroundColor: paint(true), barThickness: 12, grouped: false, borderSkipped: false, borderRadius: 3 },
          { label: "holds", data: holds, backgroundColor: paint(false), barThickness: 30, grouped: false, borderSkipped: false, borderRadius: 4 },
        ],
      };
      chart = redrawn(chart, canvas, { type: "bar", data, options, plugins: [marks] });
      chart.data.datasets.forEach((set) => { set.minBarLength = 3; });
    },
  };
}

/** Rows landed per second, over the last minutes. */
export function rate(canvas) {
  let chart = null;
  return {
    update(landed) {
      if (landed.length < 2) return;
      const points = landed.map(([at, rows]) => ({ x: Date.parse(at), y: rows }));
      const bin = (points[1].x - points[0].x) / 1000;
      const data = points.slice(0, -1).map(({ x, y }) => ({ x, y: y / bin }));
      const options = {
        ...still,
        scales: {
          x: timeAxis({ min: points[0].x, max: points.at(-1).x }),
          y: {
            beginAtZero: true, suggestedMax: 1, border: { display: false }, grid: { color: ink("line") },
            ticks: { color: ink("quiet"), maxTicksLimit: 4, precision: 0, format: { notation: "compact" } },
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            callbacks: {
              title: ([point]) => `${moment(new Date(point.raw.x).toISOString())} UTC`,
              label: ({ raw }) => `${Math.round(raw.y).toLocaleString("en")} rows/s`,
            },
          },
        },
        elements: { point: { radius: 0, hitRadius: 12 }, line: { borderWidth: 1.5, stepped: "before" } },
      };
      const set = { data, borderColor: ink("stream"), backgroundColor: ink("stream-pale"), fill: true };
      chart = redrawn(chart, canvas, { type: "line", data: { datasets: [set] }, options });
    },
  };
}

function redrawn(chart, canvas, config) {
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  if (!chart) return new Chart(canvas, config);
  chart.data = config.data;
  chart.options = config.options;
  chart.update("none");
  return chart;
}
