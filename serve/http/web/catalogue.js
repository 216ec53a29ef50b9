// The catalogue: which adapters can be asked, one of them in full, and the leaderboard of a task.

import { address, at, bytes, counted, day, grown, made, score, short, table, tagsOfName, tagsOfVersion } from "./elements.js";
import { Refused, told } from "./server.js";

// What is known: the base, the hub, all adapters by name; which of them are listed, and which is shown in full.
export const state = { base: null, hub: null, known: new Map(), listed: null, chosen: null, version: null };

const TIERS = { device: "on the device", memory: "in memory", reading: "being read" };

// -- the list -----------------------------------------------------------------------------------------------------------------

export async function lookUp() {
  const asked = new URLSearchParams({ q: at("search").value, task: at("task").value }).toString();
  let found;
  try {
    found = await told(`catalogue?${asked}`);
  } catch (error) {
    if (error instanceof Refused && error.status !== 401) at("found").textContent = error.message;
    return;
  }
  if (asked !== new URLSearchParams({ q: at("search").value, task: at("task").value }).toString()) return; // typed on meanwhile
  const isAll = !at("search").value && !at("task").value;
  Object.assign(state, { base: found.base, hub: found.hub });
  at("base").textContent = found.base.name;
  document.title = `${found.base.name} · graftax`;
  if (isAll) offer(found);
  list(found, isAll);
  dispatchEvent(new Event("known"));
}

// What can be chosen: tasks to filter by, names to ask.
function offer({ base, adapters }) {
  const tasks = [...new Set(adapters.map((one) => one.task).filter(Boolean))].sort();
  at("task").replaceChildren(made("option", { value: "" }, "every task"), ...tasks.map((task) => made("option", null, task)));
  const names = adapters.flatMap((one) => [one.name, ...Object.keys(one.tags).map((tag) => `${one.name}:${tag}`)]);
  at("names").replaceChildren(...[base.name, ...names].map((name) => made("option", { value: name })));
  state.known = new Map(adapters.map((one) => [one.name, one]));
}

function list({ adapters, more }, isAll) {
  at("found").textContent = more ? `the first ${adapters.length}` : adapters.length ? counted(adapters.length, "adapter") : "";
  const listed = JSON.stringify([adapters, isAll]);
  if (listed === state.listed) return; // whoever reads or points at it is not disturbed
  state.listed = listed;
  at("adapters").replaceChildren(...(adapters.length ? adapters.map(row) : [made("li.empty", null, nothing(isAll))]));
  if (state.chosen) show(state.chosen, state.version);
}

function nothing(isAll) {
  if (!isAll) return "No adapter is like that.";
  if (state.hub) return ["The hub has no adapter for this base yet. ", made("code", null, "graftax hub push NAME DIR"), " makes one appear here."];
  return ["No adapters are loaded. Start the server with ", made("code", null, "-a NAME=DIR"), " or ", made("code", null, "--hub URL"), "."];
}

function row(one) {
  const metric = Object.entries(one.metrics).find(([name]) => name !== "epoch");
  const facts = [
    one.task ?? "task unknown",
    one.methods.join(" + "),
    one.label_count ? counted(one.label_count, "label") : null,
    one.from === "loaded" ? "loaded by hand" : null,
    metric ? `${metric[0]} ${score(metric[1])}` : null,
    TIERS[one.where],
  ];
  const name = made("a.name", { href: `#/catalogue/${address(one.name)}` }, one.name);
  const version = one.version ? made("span.quiet", null, `:${one.version}`) : "";
  const tags = tagsOfName(one.tags).flatMap((tag) => [" ", tag]);
  const element = made(
    "li",
    null,
    made("span", null, name, version, ...tags),
    made("a.button.small", { href: `#/playground/${address(one.name)}`, "aria-label": `Ask ${one.name}` }, "Ask"),
    made("small", null, facts.filter(Boolean).join(" · ")),
    made("p", null, one.description || one.labels.join(", ")),
  );
  element.dataset.name = one.name;
  element.toggleAttribute("data-chosen", one.name === state.chosen);
  return element;
}

// -- one of them --------------------------------------------------------------------------------------------------------------

export async function show(name, version = null) {
  const isNew = name !== state.chosen || version !== state.version;
  Object.assign(state, { chosen: name, version });
  for (const element of at("adapters").children) element.toggleAttribute("data-chosen", element.dataset.name === name);
  if (name === null) return at("detail").replaceChildren(), rank(at("task").value);
  let found;
  try {
    found = await told(`catalogue/${address(name)}${version ? `?version=${version}` : ""}`);
  } catch (error) {
    const said = error instanceof Refused ? error.message : "The server does not answer.";
    if (state.chosen === name && isNew) at("detail").replaceChildren(made("p.error", null, said));
    return;
  }
  if (state.chosen !== name || state.version !== version) return; // another was chosen meanwhile
  const { adapter, versions, card, card_problem: problem } = found;
  const reference = version ? `${name}:${version}` : name;
  const ask = made("a.button.small", { href: `#/playground/${address(reference)}` }, version ? `Ask version ${version}` : "Ask it");
  at("detail").replaceChildren(
    made("h3", null, made("span", null, reference), ask),
    facts(adapter),
    ...(versions.length ? [history(name, versions, adapter.version)] : []),
    ...measured(versions.find((one) => one.version === adapter.version)),
    ...(problem ? [made("p.error", null, `Its card cannot be shown: ${problem}`)] : []),
    ...(card?.length ? [made("div.card", null, ...card.map(grown))] : []),
  );
  if (isNew && matchMedia("(max-width: 60rem)").matches) at("detail").scrollIntoView();
  rank(adapter.task);
}

function facts(one) {
  const known = {
    about: one.description,
    task: one.task,
    method: one.methods.join(" + "),
    labels: one.labels.join(", "),
    base: one.base,
    parameters: one.parameters.toLocaleString("en"),
    size: bytes(one.size),
    digest: made("code", null, `sha256:${short(one.digest)}`),
    where: TIERS[one.where] ?? (one.from === "hub" ? "on the hub" : "on the disk"),
  };
  const said = Object.entries(known).filter(([, value]) => value);
  return made("dl.facts", null, ...said.flatMap(([key, value]) => [made("dt", null, key), made("dd", null, value)]));
}

function history(name, versions, current) {
  const lines = versions.map((one) => {
    const link = made("a", { href: `#/catalogue/${address(name)}?${one.version}` }, `:${one.version}`);
    if (one.version === current) link.setAttribute("aria-current", "true");
    const metrics = Object.entries(one.metrics).map(([metric, value]) => `${metric} ${score(value)}`);
    const standing = one.withdrawn ? made("span.error", null, `withdrawn: ${one.withdrawn}`) : tagsOfVersion(one.tags);
    return [link, standing, metrics.join(", "), day(one.pushed), made("code", null, short(one.digest)), bytes(one.size)];
  });
  return table("versions", ["version", "tags", "as training ended", "pushed", "digest", "size"], lines);
}

function measured(version) {
  if (!version?.measured.length) return [];
  const lines = version.measured.map((one) => {
    const between = one.low == null ? "" : `${score(one.low)} to ${score(one.high)}`;
    return [one.metric, score(one.value), between, `${one.data_name ?? "rows"}, ${counted(one.rows, "row")}`];
  });
  return [table("measured", ["measured", "", "95% interval", "on"], lines)];
}

// -- the leaderboard ----------------------------------------------------------------------------------------------------------

async function rank(task) {
  if (!task || !state.hub) return at("board").replaceChildren();
  const title = made("h3", null, `Leaderboard of ${task}`);
  let board;
  try {
    board = await told(`leaderboard/${encodeURIComponent(task)}`);
  } catch {
    return at("board").replaceChildren();
  }
  if (!board.places.length) {
    const said = ["Nothing of this task was measured yet: ", made("code", null, "graftax eval --record"), " does it."];
    return at("board").replaceChildren(title, made("p.quiet", null, said));
  }
  const ends = board.places.flatMap((one) => [one.low ?? one.value, one.high ?? one.value]);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const share = (value) => (most > least ? (100 * (value - least)) / (most - least) : 50);
  const lines = board.places.map((one) => {
    const link = made("a", { href: `#/catalogue/${address(one.name)}?${one.version}` }, `${one.name}:${one.version}`);
    return [one.place, link, score(one.value), interval(one, share)];
  });
  const lower = board.lower_is_better ? ", lower is better" : "";
  const rows = `${board.data.name ?? "rows"} (${counted(board.data.rows, "row")})`;
  const said = `${board.metric}${lower}, on ${rows}. Lines are 95% intervals; where they overlap, a place is shared.`;
  at("board").replaceChildren(title, made("p.quiet", null, said), table("places", ["", "version", board.metric, ""], lines));
}

// A value within its interval, drawn.
function interval(one, share) {
  const [line, point] = [made("i"), made("b")];
  line.style.left = `${share(one.low ?? one.value)}%`;
  line.style.right = `${100 - share(one.high ?? one.value)}%`;
  point.style.left = `${share(one.value)}%`;
  const said = one.low == null ? "no interval" : `${score(one.low)} to ${score(one.high)}`;
  return made("span.span", { title: said, role: "img", "aria-label": said }, line, point);
}

let typing;
at("search").addEventListener("input", () => (clearTimeout(typing), (typing = setTimeout(lookUp, 200))));
at("task").addEventListener("change", () => (lookUp(), state.chosen || rank(at("task").value)));
at("filters").addEventListener("submit", (event) => (event.preventDefault(), lookUp()));
