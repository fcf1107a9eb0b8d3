// One pipeline's section. Whatever came from outside goes in as text, never as markup.

import { rate, reach, timeline } from "./charts.js";
import { ago, count, many, moment, stretch } from "./format.js";

/** An element: attributes by name, children as nodes or as text. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** A box whose content is replaced only where it changed, so that a selection or a focus in it stays. */
function box(tag, attributes) {
  const node = el(tag, attributes);
  let drawn = "";
  return {
    node,
    fill(...children) {
      const fresh = el(tag, {}, ...children);
      if (fresh.innerHTML !== drawn) {
        drawn = fresh.innerHTML;
        node.replaceChildren(...fresh.childNodes);
      }
      node.hidden = !node.childNodes.length;
    },
  };
}

/** A chart in a figure of its own. */
function figure(pipeline, title, size, ...rest) {
  const canvas = el("canvas", { role: "img", "aria-label": `${title} of ${pipeline}; the text below says the same` });
  const node = el("figure", { class: "card" }, el("h3", {}, title), el("div", { class: `canvas ${size}` }, canvas), ...rest);
  return { node, canvas };
}

export function pipeline(name) {
  const [head, wrong, tiles] = ["head", "wrong", "tiles"].map((part) => box("div", { class: part }));
  const [rejects, running, runs] = [1, 2, 3].map(() => box("div", { class: "card" }));
  const proven = box("div", { class: "card wide" }), empty = box("p", { class: "empty" }), legend = box("ul", { class: "legend" });
  const line = figure(name, "Both layers on one time line", "line", legend.node);
  const speed = figure(name, "Rows landed per second", "rate");
  line.node.classList.add("wide");
  const columns = [[speed, runs], [running, rejects]].map((parts) => el("div", { class: "column" }, parts.map((part) => part.node)));
  const grid = el("div", { class: "grid" }, line.node, columns, proven.node);
  const node = el("section", { id: name, "data-pipeline": name }, head.node, wrong.node, empty.node, tiles.node, grid);
  const [drawLine, drawRate] = [timeline(line.canvas), rate(speed.canvas)];

  return {
    node,
    update(one, now) {
      const { status } = one;
      const known = Boolean(status.layers);
      const reached = known && reach(status.layers, Date.parse(now));
      head.fill(...heading(one));
      wrong.fill(...(one.problems.length ? [problems(one.problems)] : []));
      empty.fill(...(known && !reached ? nothingYet(one) : []));
      tiles.fill(...(known ? numbers(status, now) : []));
      line.node.hidden = speed.node.hidden = !reached;
      legend.fill(...(reached ? explained(status, now, reached) : []));
      rejects.fill(...(known ? rejected(status.outcomes) : []));
      running.fill(...services(status.services));
      runs.fill(...dags(one, now));
      proven.fill(...(known ? proof(status.proved, one.name, now) : []));
      if (reached) {
        drawLine(status.layers, status.speed, now, reached);
        drawRate(status.speed.landed);
      }
    },
  };
}

function heading({ name, topic, problems: found }) {
  const worst = found.find(({ severity }) => severity !== "note")?.severity;
  const word = { error: "something is wrong", warning: "needs a look" }[worst] ?? "all is well";
  return [
    el("h2", {}, name),
    el("span", { class: `badge ${worst ?? "fine"}` }, word),
    el("span", { class: "quiet" }, "topic ", el("code", {}, topic)),
  ];
}

/** What is wrong, each with the command and the page of the runbook. */
export function problems(found) {
  return el("ul", { class: "problems" }, found.map((problem) =>
    el("li", { class: problem.severity },
      el("span", { class: "what" }, el("b", {}, { error: "Error", warning: "Warning", note: "Note" }[problem.severity]), " ", prose(problem.text)),
      el("span", { class: "do" },
        problem.command ? el("code", { tabindex: "0" }, problem.command) : null,
        problem.runbook ? runbook(problem.runbook) : null,
        problem.link ? el("a", { href: `../${problem.link}`, "data-out": "", target: "_top" }, "Show") : null,
      ),
    )));
}

/** A sentence in which `commands` stand in backticks. */
function prose(text) {
  return text.split(/`([^`]+)`/).map((part, number) => (number % 2 ? el("code", {}, part) : part));
}

function runbook(address) {
  const away = address.includes("://");
  return el("a", away ? { href: address, "data-out": "", target: "_blank", rel: "noopener" } : { href: address }, "Runbook");
}

function nothingYet({ name }) {
  return [
    "Nothing has landed yet. The DAG ", el("code", {}, `${name}_services`), " starts the stream; ",
    el("code", {}, `twofold land ${name} FILE`), " lands a file for the batch layer.",
  ];
}

function numbers({ layers, speed, outcomes }, now) {
  const rejectedRows = outcomes.rejected.reduce((sum, kind) => sum + kind.count, 0);
  const waiting = [many(layers.stream_past_boundary, "record"), many(layers.landings_past_boundary, "landing")];
  return [
    tile("Behind Kafka", count(speed.offsets_behind), speed.offsets_behind === null ? "not known" : "records not landed yet"),
    tile("Rate", `${count(Math.round(speed.rows_per_second))}/s`, "landed over the last minute"),
    tile("Past the boundary", waiting[0], `and ${waiting[1]} wait for the union, last ${ago(layers.united_at, now)}`),
    tile("Late", count(outcomes.late), lateText(outcomes, now)),
    tile("Rejected", count(rejectedRows), `since ${outcomes.since.slice(0, 10)}${outcomes.set_aside ? `; ${many(outcomes.set_aside, "file")} set aside` : ""}`),
  ];
}

function lateText({ healed, difference, compared_at: at }, now) {
  if (healed === null) return "rows that stream_<view> lacks; unified_<view> has them";
  const apart = difference ? `; the layers were ${(difference * 100).toFixed(difference < 0.001 ? 3 : 1)} % apart` : "";
  return `rows (without an id: groups of rows) too late for a streamed window; the last union healed ${count(healed)}${apart}, ${ago(at, now)}`;
}

const tile = (name, value, text) => el("div", { class: "tile" }, el("span", { class: "name" }, name), el("strong", {}, value), el("span", { class: "quiet" }, text));

/** The time line in words: the same as the chart, for those who cannot see it, and with exact times. */
function explained({ layers, speed }, now, reached) {
  const span = (log) => (log.extent ? `${moment(log.extent.first)} to ${moment(log.extent.last)}` : "nothing yet");
  const item = (mark, name, ...rest) => el("li", {}, el("i", { class: mark }), el("span", {}, el("b", {}, name), " ", ...rest));
  return [
    item("bar batch", "Batch layer", layers.sealed_through ? `in live_<view> up to ${moment(layers.sealed_through)} (sealed through: final)` : "no window is final yet: no union has sealed one"),
    item("bar batch-pale", "Landed files", `${span(layers.batch_log)}, ${many(layers.batch_log.rows, "row")}`),
    item("bar stream", "Speed layer", layers.stream_log.extent ? `in live_<view> past that, up to ${moment(layers.stream_log.extent.last)}; unified_<view> is exact all along` : "has landed nothing yet"),
    item("bar stream-pale", "Streamed", `${span(layers.stream_log)}, ${many(layers.stream_log.rows, "record")}`),
    item("mark ink", "Boundary", layers.boundary ? `${moment(layers.boundary)}: the latest event that the union has taken from the stream` : "none: no union has taken from the stream"),
    speed.watermark ? item("mark stream", "Watermark", `${moment(speed.watermark)}: what comes in older is late`) : null,
    item("mark bad", "Now", `${moment(now)} UTC${reached.off ? `, ${stretch(reached.late / 1000)} past the last event` : ""}`),
  ].filter(Boolean);
}

function rejected({ rejected: kinds, since }) {
  const rows = kinds.map(({ kind, layer, count: records }) =>
    el("tr", {}, el("td", {}, kind), el("td", {}, layer), el("td", { class: "number" }, count(records))));
  const none = el("p", { class: "quiet" }, `Nothing was rejected since ${since.slice(0, 10)}.`);
  return [el("h3", {}, "Rejected by kind"), rows.length ? table(["kind", "layer", "records"], rows) : none];
}

function services(found) {
  const rows = found.map((one) =>
    el("tr", {},
      el("th", { scope: "row" }, { stream: "streaming job" }[one.name] ?? one.name),
      el("td", {}, el("span", { class: `dot ${one.healthy ? (one.state === "starting" ? "warning" : one.running ? "fine" : "idle") : "error"}` }), one.state,
        one.text ? el("div", { class: "quiet" }, one.text) : null),
      el("td", { class: "number" }, one.budget === null ? "–" : `${one.restarts} of ${one.budget}`,
        one.changes ? el("div", { class: "quiet" }, `and ${one.changes} for a changed definition`) : null),
    ));
  return [el("h3", {}, "Services"), table(["service", "state", "restarts this hour"], rows)];
}

function dags({ name, dags: found }, now) {
  if (!found.length) return [el("h3", {}, "DAGs"), el("p", { class: "quiet" }, "Airflow does not know this pipeline's DAGs yet.")];
  const rows = found.map((dag) =>
    el("tr", {},
      el("th", { scope: "row" }, el("a", { href: `../dags/${encodeURIComponent(dag.id)}`, "data-out": "", target: "_top" }, dag.id.slice(name.length + 1)),
        dag.paused ? el("span", { class: "badge idle" }, "paused") : null),
      el("td", { class: "runs" }, [...dag.runs].reverse().map((run) => square(dag, run, now))),
      el("td", { class: "quiet" }, dag.runs.length ? ago(dag.runs[0].at, now) : "never"),
    ));
  return [el("h3", {}, "Last runs"), table(["DAG", "runs, the latest last", "last"], rows)];
}

function square(dag, run, now) {
  const took = run.seconds === null ? "" : `, took ${stretch(run.seconds)}`;
  const label = `${run.state}, ${moment(run.at)} UTC${took}`;
  const href = `../dags/${encodeURIComponent(dag.id)}/runs/${encodeURIComponent(run.id)}`;
  return el("a", { class: `run ${run.state}`, href, title: label, "aria-label": label, "data-out": "", target: "_top" });
}

const SIGNS = { holds: "✓", behind: "…", "not proved": "?", violated: "✗" };

function proof(proved, name, now) {
  if (!proved) return [el("h3", {}, "Invariants"), el("p", { class: "quiet" }, "Not checked yet: ", el("code", {}, `twofold prove ${name}`))];
  const rows = proved.checks.map((check) =>
    el("tr", {},
      el("th", { scope: "row", class: `state ${check.state.replace(" ", "-")}` }, `${SIGNS[check.state]} ${check.id} ${check.state}`),
      el("td", {}, check.meaning, el("div", { class: "quiet" }, prose(check.text))),
    ));
  return [
    el("h3", {}, `Invariants, as the last proof found them ${ago(proved.at, now)}`),
    ...(proved.since ? [el("p", { class: "quiet" }, `On what changed since ${moment(proved.since)} UTC; everything was checked ${ago(proved.in_full_at, now)}.`)] : []),
    el("table", { class: "proof" }, el("tbody", {}, rows)),
  ];
}

function table(names, rows) {
  const heads = names.map((name) => el("th", { scope: "col" }, name));
  return el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows));
}
