// The two charts of a pipeline, drawn by Chart.js: the layers on one time line, and the rate.

/* global Chart */
import { moment } from "./format.js";

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const STEPS = [1, 5, 15, 60, 300, 900].map((seconds) => seconds * SECOND)
  .concat([1, 3, 6, 12, 24, 48, 168, 336].map((hours) => hours * HOUR));
const MONTHS = [1, 2, 3, 6, 12, 24, 60, 120, 600];
const LABEL_PX = 88;

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
  const at = [];
  if (step) {
    for (let tick = Math.ceil(first / step) * step; tick <= last; tick += step) at.push(tick);
    return { at, text: (tick) => clock(tick, step) };
  }
  const months = MONTHS.find((size) => (last - first) / (size * 30 * DAY) <= most) ?? MONTHS.at(-1);
  const start = new Date(first).getUTCFullYear();
  for (let month = 0, tick = 0; (tick = Date.UTC(start - (start % Math.ceil(months / 12)), month)) <= last; month += months) {
    if (tick >= first) at.push(tick);
  }
  return { at, text: (tick) => new Date(tick).toISOString().slice(0, months < 12 ? 7 : 4) };
}

function clock(at, step) {
  const iso = new Date(at).toISOString();
  if (step >= DAY || at % DAY === 0) return iso.slice(0, 10);
  return iso.slice(11, step < MINUTE ? 19 : 16);
}

const timeAxis = (min, max) => ({
  type: "linear",
  min,
  max,
  afterBuildTicks: (scale) => {
    const made = ticks(scale.min, scale.max, Math.max(2, Math.floor(scale.width / LABEL_PX)));
    scale.ticks = made.at.map((value) => ({ value }));
    scale.options.ticks.callback = made.text;
  },
  grid: { color: ink("line"), drawTicks: false },
  border: { display: false },
  ticks: { color: ink("quiet"), maxRotation: 0, autoSkip: false, padding: 6 },
});

/** A chart that is made when it is first drawn, and changed after that. */
function canvasOf(canvas, type, plugins = []) {
  let chart = null;
  return (data, { tooltip, marks, ...more }) => {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    const options = {
      animation: false, responsive: true, maintainAspectRatio: false, resizeDelay: 50,
      plugins: { legend: { display: false }, tooltip: { callbacks: tooltip }, marks },
      ...more,
    };
    if (chart) Object.assign(chart, { data, options }).update("none");
    else chart = new Chart(canvas, { type, data, options, plugins });
  };
}

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

/** The bars of each lane: what it holds (pale), and what of it the live views show (solid). */
function bars(layers) {
  const of = (extent) => (extent ? [Date.parse(extent.first), Date.parse(extent.last)] : null);
  const sealed = layers.sealed_through ? Date.parse(layers.sealed_through) : 0;
  const [events, stream] = [of(layers.events.extent), of(layers.stream_log.extent)];
  return {
    holds: [of(layers.batch_log.extent), stream],
    answers: [
      events && events[0] < sealed ? [events[0], sealed] : null,
      stream && stream[1] > sealed ? [Math.max(stream[0], sealed), stream[1]] : null,
    ],
  };
}

/** Upright lines, as the legend below shows them: {at, color, dash}. */
const marks = {
  id: "marks",
  afterDatasetsDraw({ ctx, chartArea: area, scales }, _, { lines }) {
    ctx.save();
    ctx.lineWidth = 1.5;
    for (const { at, color, dash } of lines) {
      const x = scales.x.getPixelForValue(Date.parse(at));
      ctx.strokeStyle = ink(color);
      ctx.setLineDash(dash);
      ctx.beginPath();
      ctx.moveTo(x, area.top - 3);
      ctx.lineTo(x, area.bottom);
      ctx.stroke();
    }
    ctx.restore();
  },
};

/** The time line on a canvas: a function that draws it again. */
export function timeline(canvas) {
  const draw = canvasOf(canvas, "bar", [marks]);
  return (layers, speed, now, reached) => {
    const { holds, answers } = bars(layers);
    const lines = [
      { at: layers.boundary, color: "ink", dash: [5, 3] },
      { at: speed.watermark, color: "stream", dash: [2, 3] },
      { at: reached.off ? null : now, color: "bad", dash: [] },
    ];
    const look = { grouped: false, borderSkipped: false, minBarLength: 3 };
    draw({
      labels: ["Batch layer", "Speed layer"],
      datasets: [
        { label: "in live views", data: answers, backgroundColor: [ink("batch"), ink("stream")], barThickness: 12, borderRadius: 3, ...look },
        { label: "holds", data: holds, backgroundColor: [ink("batch-pale"), ink("stream-pale")], barThickness: 30, borderRadius: 4, ...look },
      ],
    }, {
      indexAxis: "y",
      layout: { padding: { top: 8, right: 4 } },
      marks: { lines: lines.filter(({ at }) => at) },
      scales: {
        x: timeAxis(reached.first, reached.last),
        y: { grid: { display: false }, border: { display: false }, ticks: { color: ink("ink"), padding: 4 } },
      },
      tooltip: { label: ({ dataset, raw }) => `${dataset.label} ${raw.map((at) => moment(new Date(at).toISOString())).join(" to ")}` },
    });
  };
}

/** Rows landed per second, over the last minutes: a function that draws them again. */
export function rate(canvas) {
  const draw = canvasOf(canvas, "line");
  return (landed) => {
    const times = landed.map(([at]) => Date.parse(at));
    const bin = (times[1] - times[0]) / SECOND;
    const data = landed.slice(0, -1).map(([, rows], number) => ({ x: times[number], y: rows / bin }));
    const ticks = { color: ink("quiet"), maxTicksLimit: 4, precision: 0, format: { notation: "compact" } };
    draw({ datasets: [{ data, borderColor: ink("stream"), backgroundColor: ink("stream-pale"), fill: true }] }, {
      scales: {
        x: timeAxis(times[0], times.at(-1)),
        y: { beginAtZero: true, suggestedMax: 1, border: { display: false }, grid: { color: ink("line") }, ticks },
      },
      elements: { point: { radius: 0, hitRadius: 12 }, line: { borderWidth: 1.5, stepped: "before" } },
      tooltip: {
        title: ([point]) => `${moment(new Date(point.raw.x).toISOString())} UTC`,
        label: ({ raw }) => `${Math.round(raw.y).toLocaleString("en")} rows/s`,
      },
    });
  };
}
