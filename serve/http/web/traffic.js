// The traffic: what goes on now, and which adapters are where.

import { state } from "./catalogue.js";
import { at, bytes, counted, made, rate, seconds, short } from "./elements.js";

const KEPT = 120; // looks, one a second, that the small lines show
const MOST_SLOTS = 64; // that are drawn
const MOST_NAMED = 20; // adapters in memory

let looks = [];

export function remember(seen) {
  looks = [...looks, seen].slice(-KEPT);
}

// What there was of something in each second of the looks; a server that began anew begins at nothing.
function rates(key) {
  const pairs = looks.slice(1).map((now, i) => [looks[i], now]);
  return pairs.map(([before, now]) => Math.max(0, now[key] - before[key]) / Math.max(0.1, now.at - before.at));
}

// The mean of some numbers; null of none.
const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);

export function drawTraffic() {
  const seen = looks.at(-1);
  if (!seen) return;
  const [requests, tokens] = [rates("answered"), rates("tokens_written")];
  const { latency } = seen;
  const of = seen.lanes ? made("small", null, ` of ${seen.lanes} lanes`) : "";
  const tiles = [
    ["Running", [seen.running, of], looks.map((one) => one.running)],
    ["Waiting", [seen.waiting], looks.map((one) => one.waiting)],
    ["Requests per second", [rate(mean(requests.slice(-5)))], requests],
    ...(seen.lanes ? [["Tokens per second", [rate(mean(tokens.slice(-5)))], tokens]] : []),
    ["Latency, median", [seconds(latency.median)], looks.map((one) => one.latency.median ?? 0)],
    ["Latency, 95%", [seconds(latency.p95)], looks.map((one) => one.latency.p95 ?? 0)],
    ["Answered", [seen.answered.toLocaleString("en"), seen.failed ? made("small.error", null, ` ${seen.failed} failed`) : ""], null],
  ];
  const drawn = tiles.map(([name, value, line]) => made("div", null, made("dt", null, name), made("dd", null, ...value), line && spark(line)));
  at("tiles").replaceChildren(...drawn);
  drawTiers(seen);
}

function spark(values) {
  const [namespace, most] = ["http://www.w3.org/2000/svg", Math.max(...values, 1e-9)];
  const [svg, line] = ["svg", "polyline"].map((name) => document.createElementNS(namespace, name));
  const step = 100 / (KEPT - 1);
  const first = 100 - step * (values.length - 1);
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("points", values.map((value, i) => `${(first + i * step).toFixed(2)},${(19 - (18 * value) / most).toFixed(2)}`).join(" "));
  svg.append(line);
  return svg;
}

function drawTiers({ tiers }) {
  const line = (name, more) => made("li", null, made("span.name", null, name), made("span.quiet", null, more));
  const slots = Array.from({ length: Math.min(tiers.slots, MOST_SLOTS) }, (_, i) => {
    const there = tiers.device[i];
    return made(there ? (there.held ? "i.held" : "i.used") : "i");
  });
  const device = [
    made("div.slots", { "aria-hidden": "true" }, ...slots),
    made("ul", null, ...tiers.device.map((one) => line(one.adapter, one.held ? `in use by ${one.held}` : "idle"))),
    made("p.quiet", null, [counted(tiers.hits, "hit"), counted(tiers.writes, "write"), counted(tiers.evictions, "eviction")].join(", ")),
  ];
  const memory = [
    made("ul", null, ...tiers.reading.map((name) => line(name, "being read"))),
    made("ul", null, ...tiers.memory.slice(0, MOST_NAMED).map((one) => line(one.adapter, short(one.digest)))),
    made("p.quiet", null, counted(tiers.reads, "read")),
  ];
  at("tiers").replaceChildren(
    tier("On the device", `${tiers.on_device} of ${counted(tiers.slots, "slot")}`, device),
    tier("In memory", `${tiers.in_memory}, ${bytes(tiers.memory_bytes)}`, memory),
    tier("On the hub", ...hub()),
  );
}

const tier = (title, fact, content) => made("section", null, made("h3", null, title, made("span.quiet", null, fact)), content);

function hub() {
  if (!state.hub) return ["none", made("p.quiet", null, "This server was started without one (--hub).")];
  if (state.hub.away) return ["away", made("p.error", null, state.hub.away)];
  const there = [...state.known.values()].filter((one) => one.from === "hub").length;
  return [`${counted(there, "adapter")} for this base`, made("p.quiet", null, "What is pushed there can be asked at once.")];
}
