// Asks for the status again and again, and keeps what it last had on the screen, whatever happens.
//
//   status.json ─► draw the parts that changed          a refresh fails ─► say so, above the last data

import "./frame.js";
import { clock } from "./format.js";
import { el, pipeline, problems } from "./parts.js";

const EVERY_MS = 5000;
const GIVE_UP_MS = 30000;
const main = document.getElementById("pipelines");
const fresh = document.getElementById("fresh");
const trouble = document.getElementById("trouble");
const shown = new Map(); // pipeline → its section
let last = null;

async function ask() {
  const answer = await fetch("status.json", { signal: AbortSignal.timeout(GIVE_UP_MS), cache: "no-store" }).catch(() => {
    throw new Error("Airflow's API server does not answer");
  });
  if (answer.status === 401) throw new Refused("Your session has ended.", "Log in again");
  if (answer.status === 403) throw new Refused("Your role may not read any DAG.", "");
  if (!answer.ok) throw new Error(`Airflow's API server answered ${answer.status}`);
  return answer.json();
}

class Refused extends Error {
  constructor(text, way) {
    super(text);
    this.way = way;
  }
}

function draw(data) {
  const names = new Set(data.pipelines.map((one) => one.name));
  for (const [name, section] of shown) {
    if (!names.has(name)) {
      section.node.remove();
      shown.delete(name);
    }
  }
  for (const one of data.pipelines) {
    if (!shown.has(one.name)) {
      shown.set(one.name, pipeline(one.name));
      main.append(shown.get(one.name).node);
    }
    shown.get(one.name).update(one, data.at);
  }
  apart(data);
}

// What concerns no pipeline that is shown: faulty definitions, and that there is nothing to show.
function apart({ problems: found, pipelines, hidden }) {
  document.getElementById("apart")?.remove();
  const code = (text) => el("code", {}, text);
  const nothing = hidden
    ? ["You may not read the DAGs of any pipeline. An administrator can give your role that right."]
    : ["No pipeline is declared yet. Write ", code("pipelines/<name>.yaml"), " and see it here within half a minute; ", code("twofold check FILE"), " lists its faults."];
  const nodes = found.length ? [problems(found)] : [];
  if (!pipelines.length) nodes.push(el("p", { class: "empty" }, nothing));
  if (nodes.length) main.prepend(el("div", { id: "apart" }, nodes));
}

/** Of when the oldest of the data is: a pipeline that is slow to gather is shown as it was. */
const asOf = ({ at, pipelines }) => [at, ...pipelines.map(({ status }) => status.at)].sort()[0];

async function refresh() {
  try {
    const data = await ask();
    draw(data);
    if (!last) shown.get(decodeURIComponent(location.hash.slice(1)))?.node.scrollIntoView();
    last = asOf(data);
    trouble.hidden = true;
    fresh.textContent = `as of ${clock(last)} UTC`;
  } catch (error) {
    say(error);
  } finally {
    main.setAttribute("aria-busy", "false");
    document.body.classList.toggle("stale", !trouble.hidden);
  }
}

function say(error) {
  const kept = last ? ` What you see is of ${clock(last)} UTC.` : "";
  trouble.replaceChildren(`${error.message.replace(/\.$/, "")}.${kept} `);
  if (error.way) trouble.append(el("a", { href: "../", "data-out": "", target: "_top" }, error.way));
  else if (!(error instanceof Refused)) trouble.append(`Trying again every ${EVERY_MS / 1000} s; see `, el("code", {}, "twofold status"), ".");
  fresh.textContent = last ? `as of ${clock(last)} UTC, not refreshed since` : "not loaded";
  trouble.hidden = false;
}

async function keepFresh() {
  for (;;) {
    await refresh();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    while (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    }
  }
}

keepFresh();
