// The training: jobs that run, those that wait for their turn, and those that have ended, each with the curve of its loss.

import { at, counted, made, score, seconds } from "./elements.js";
import { asked, told } from "./server.js";

const LISTED = 50; // jobs, the newest
const POINTS = 100; // events that a curve is drawn of, which are read anew while a job runs
const OVER = new Set(["succeeded", "failed", "cancelled"]);
const WIDTH = 100; // of a drawing, in its own units
const HEIGHT = 40;

const cards = new Map(); // by id: what a job is drawn in, and what was drawn last
const curves = new Map(); // by id: what was measured, the oldest first

// Look at the jobs of whoever has the key, and draw them.
export async function lookAtJobs() {
  const { data: jobs, has_more: more } = await told(`v1/fine_tuning/jobs?limit=${LISTED}`);
  for (const job of jobs) if (!curves.has(job.id) || cards.get(job.id)?.status !== job.status || job.status === "running") await measure(job);
  const part = (id, those, order) => {
    const chosen = jobs.filter(those);
    const there = (order ? chosen.reverse().sort(order) : chosen).map(card);
    at(id).hidden = !there.length;
    const list = at(id).querySelector("ul");
    if (there.some((one, i) => list.children[i] !== one) || list.children.length !== there.length) list.replaceChildren(...there);
  };
  part("jobs-running", (job) => job.status === "running");
  part("jobs-waiting", (job) => !OVER.has(job.status) && job.status !== "running", inLine);
  part("jobs-over", (job) => OVER.has(job.status));
  at("jobs-none").hidden = jobs.length > 0;
  at("jobs-more").hidden = !more;
}

// Who is next is the first: of those of the highest priority the one that has come first, as the sorting leaves it.
const inLine = (a, b) => b.graftax.priority - a.graftax.priority;

async function measure(job) {
  const { data: events } = await told(`v1/fine_tuning/jobs/${job.id}/events?limit=${POINTS}`);
  const metrics = events.filter((event) => event.type === "metrics").map((event) => event.data);
  curves.set(job.id, metrics.reverse());
}

// The element of a job, which stays the same for as long as the page is open, so that nobody loses a button under the hand.
function card(job) {
  const one = cards.get(job.id) ?? begun(job);
  cards.set(job.id, one);
  one.status = job.status;
  const { cost, steps } = job.graftax;
  const done = job.status === "succeeded" ? steps : cost.steps;
  say(one.is, job.status.replace("_", " "));
  one.element.dataset.is = job.status;
  one.bar.hidden = !steps || (OVER.has(job.status) && job.status !== "succeeded");
  one.bar.max = steps ?? 1;
  one.bar.value = done;
  say(one.facts, [steps && `${done.toLocaleString("en")} of ${counted(steps, "step")}`, cost.seconds && `${seconds(cost.seconds)} of the device`, until(job)].filter(Boolean).join(", "));
  say(one.model, job.fine_tuned_model ?? "");
  say(one.error, job.error?.message ?? "");
  one.cancel.hidden = OVER.has(job.status);
  const drawing = JSON.stringify(curves.get(job.id));
  if (one.drawing !== drawing) one.curve.replaceChildren(...curve(curves.get(job.id)));
  one.drawing = drawing;
  return one.element;
}

function begun(job) {
  const name = job.graftax.suffix ?? job.id;
  const one = {
    is: made("span.tag"),
    bar: made("progress", { "aria-label": "steps" }),
    facts: made("small"),
    model: made("code.name"),
    error: made("p.error"),
    curve: made("figure"),
    cancel: made("button.plain.small", { type: "button", onclick: () => cancel(job.id, name, one) }, "Cancel"),
  };
  const methods = job.graftax.method.map((method) => method.name).join(" + ") || "a head";
  const what = made("small", null, `${job.graftax.task} by ${methods}, on ${job.model}`);
  one.element = made("li", null, made("div", null, made("div.field-row", null, made("span.name", null, name), one.is, one.cancel), what, one.bar, one.facts, one.model, one.error), one.curve);
  return one;
}

const say = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
};

function until(job) {
  if (!job.estimated_finish) return "";
  const left = Math.max(0, job.estimated_finish - Date.now() / 1000);
  return `about ${left < 90 ? `${Math.ceil(left)} s` : left < 5400 ? `${Math.round(left / 60)} min` : `${(left / 3600).toFixed(1)} h`} to go`;
}

async function cancel(id, name, one) {
  if (!confirm(`Cancel the job ${name}? What it has learnt so far is dropped.`)) return;
  try {
    await asked(`v1/fine_tuning/jobs/${id}/cancel`, {});
    await lookAtJobs();
  } catch (error) {
    say(one.error, error.message);
  }
}

// The loss over the steps: of training, and thinner that of validation.
function curve(metrics) {
  const lines = ["train_loss", "valid_loss"].map((key) => (metrics ?? []).filter((one) => Number.isFinite(one[key])).map((one) => [one.step, one[key]]));
  const points = lines.flat();
  if (!points.length) return [];
  const [least, most] = [Math.min(...points.map(([, loss]) => loss)), Math.max(...points.map(([, loss]) => loss))];
  const last = Math.max(...points.map(([step]) => step));
  const first = Math.min(...points.map(([step]) => step)) % last; // of a single measurement 0: it is drawn as a level
  const svg = drawn("svg", { viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`, preserveAspectRatio: "none", class: "curve", role: "img" });
  svg.setAttribute("aria-label", `loss over ${counted(last, "step")}, ${score(points[0][1])} at first, ${score(lines[0].at(-1)?.[1] ?? least)} now`);
  const place = ([step, loss]) => `${((WIDTH * (step - first)) / (last - first)).toFixed(1)},${(most > least ? HEIGHT * (1 - (loss - least) / (most - least)) : HEIGHT / 2).toFixed(1)}`;
  for (const line of lines) {
    const from = line.length === 1 ? [[first, line[0][1]], ...line] : line;
    if (line.length) svg.append(drawn("polyline", { points: from.map(place).join(" ") }));
  }
  const ends = lines.map((line) => line.at(-1)?.[1]);
  const said = [`loss ${score(ends[0] ?? ends[1])}`, ends[0] != null && ends[1] != null && `held out ${score(ends[1])}`];
  return [svg, made("figcaption.quiet", null, said.filter(Boolean).join(", "))];
}

function drawn(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
