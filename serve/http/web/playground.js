// The playground: one text or picture, asked of several adapters side by side.

import { state } from "./catalogue.js";
import { at, counted, made, rate, score, seconds, short } from "./elements.js";
import { chosen, focusPicture } from "./picture.js";
import { asked, Refused } from "./server.js";

const MOST_COLUMNS = 4;
const MOST_BARS = 8;

const columns = [];

// The first things to be asked: the base where it writes, and the first adapters.
export function begin() {
  const [{ base }, names] = [state, [...state.known.keys()].slice(0, 2)];
  at("writing").hidden = !base.writes;
  at("of-text").hidden = base.reads === "image";
  at("of-picture").hidden = base.reads !== "image";
  at("text").value ||= base.writes ? "What is the sea?" : "";
  for (const name of base.writes || !names.length ? [base.name, ...names] : names) addColumn(name);
}

// One more to be asked, in place of the last where there is no room.
export function askAdapter(name) {
  if (!columns.some((one) => one.input.value === name)) {
    if (columns.length >= MOST_COLUMNS) removeColumn(columns.at(-1));
    addColumn(name);
  }
  focusContent();
}

function focusContent() {
  if (state.base?.reads === "image") focusPicture();
  else at("text").focus();
}

function addColumn(name) {
  const input = made("input", { value: name, spellcheck: false, autocomplete: "off", "aria-label": "Adapter, or the base" });
  input.setAttribute("list", "names");
  const column = { input, answer: made("div.answer", { "aria-live": "polite" }), who: made("div.who") };
  const remove = made("button.plain.small", { type: "button", "aria-label": "Remove this column", onclick: () => removeColumn(column) }, "×");
  column.element = made("article.column", null, made("div.field-row", null, made("label", null, input), remove), column.answer, column.who);
  columns.push(column);
  at("columns").append(column.element);
  at("add").disabled = columns.length >= MOST_COLUMNS;
  return column;
}

function removeColumn(column) {
  column.stop?.abort();
  columns.splice(columns.indexOf(column), 1);
  column.element.remove();
  at("add").disabled = columns.length >= MOST_COLUMNS;
}

at("add").addEventListener("click", () => {
  const used = new Set(columns.map((one) => one.input.value));
  const next = [...state.known.keys(), state.base?.name].find((name) => !used.has(name));
  const { input } = addColumn(next ?? "");
  input.focus();
  input.select();
});

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (columns.some((one) => one.busy)) return columns.forEach((one) => one.stop?.abort());
  const content = state.base?.reads === "image" ? await chosen() : at("text").value;
  if (!content?.trim()) return focusContent();
  at("go").textContent = "Stop";
  await Promise.all(columns.map((column) => askColumn(column, content)));
  at("go").textContent = "Ask";
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});

// What an adapter, by whatever reference, answers with: what is known of its name, else what the base can do.
function kindOf(model) {
  const plain = state.known.get(model) ?? state.known.get(model.replace(/[:@][^/]*$/, ""));
  return plain?.answers ?? (state.base?.writes ? "text" : "classes");
}

async function askColumn(column, content) {
  const model = column.input.value.trim();
  const begun = performance.now();
  column.stop = new AbortController();
  column.busy = true;
  column.answer.replaceChildren();
  column.answer.classList.add("busy");
  column.who.replaceChildren();
  try {
    await { text: writes, classes: classifies, tags: labels }[kindOf(model)](column, model, content, begun);
  } catch (error) {
    if (error.name !== "AbortError") {
      const said = error instanceof Refused ? error.message : "The server does not answer.";
      column.answer.append(made("p.error", null, said));
    }
  }
  column.busy = false;
  column.answer.classList.remove("busy");
}

function sayWho(column, answer, ...more) {
  const who = answer.adapter ? [made("code", null, answer.adapter), ` sha256:${short(answer.adapter_digest)}`] : ["the base alone"];
  column.who.replaceChildren(made("div", null, ...who), made("div", null, more.join(" · ")));
}

async function writes(column, model, text, begun) {
  const chat = at("mode").value === "chat";
  const how = { model, max_tokens: at("tokens").valueAsNumber || 64, temperature: at("temperature").valueAsNumber || 0, stream: true };
  const what = chat ? { messages: [{ role: "user", content: text }] } : { prompt: text };
  const body = { ...how, ...what, stream_options: { include_usage: true } };
  const answer = await asked(chat ? "v1/chat/completions" : "v1/completions", body, column.stop.signal);
  let first = null;
  for await (const piece of events(answer.body)) {
    if (piece.error) throw new Refused(piece.error.message);
    const choice = piece.choices[0];
    const said = choice?.delta?.content ?? choice?.text;
    if (said) {
      first ??= performance.now();
      column.answer.append(said);
    }
    const tokens = piece.usage?.completion_tokens;
    const took = (performance.now() - begun) / 1000;
    const counts = tokens ? [counted(tokens, "token"), `${rate(tokens / took)}/s`] : [];
    sayWho(column, piece, seconds(took), `first after ${seconds(first && (first - begun) / 1000)}`, ...counts);
  }
}

// The objects of a stream of server-sent events.
async function* events(body) {
  let left = "";
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    const lines = (left + chunk).split("\n\n");
    left = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function classifies(column, model, content, begun) {
  const picture = state.base?.reads === "image";
  const input = picture ? [{ type: "input_image", image_url: content }] : content;
  const answer = await (await asked("v1/classify", { model, input }, column.stop.signal)).json();
  const took = (performance.now() - begun) / 1000;
  const { label, probs, labels, cut } = answer.data[0];
  if (probs === null) column.answer.append(made("p", null, String(typeof label === "number" ? score(label) : label)));
  else column.answer.append(bars(labels, probs, [label].flat()));
  if (cut) column.answer.append(made("p.quiet", null, "The text is longer than this adapter reads: its end was not read."));
  sayWho(column, answer, seconds(took), ...(picture ? [] : [counted(answer.usage.prompt_tokens, "token")]));
}

function bars(labels, probs, best) {
  const ranked = labels.map((label, i) => [label, probs[i]]).sort((a, b) => b[1] - a[1]);
  const shown = ranked.slice(0, MOST_BARS).flatMap(([label, chance]) => {
    const fill = made("i");
    fill.style.width = `${100 * chance}%`;
    const bar = made("span.bar", { "aria-hidden": "true" }, fill);
    return [made(best.includes(label) ? "span.best" : "span", null, label), bar, made("span", null, `${(100 * chance).toFixed(1)}%`)];
  });
  const left = ranked.length - MOST_BARS;
  return made("div.bars", null, ...shown, left > 0 ? made("span.quiet", null, `and ${left} more`) : "");
}

async function labels(column, model, text, begun) {
  const words = text.trim().split(/\s+/);
  const answer = await (await asked("v1/tag", { model, input: [words] }, column.stop.signal)).json();
  const took = (performance.now() - begun) / 1000;
  const tagged = answer.data[0].labels.map((label, i) => {
    const plain = label === "O";
    return made(plain ? "span" : "span.tagged", null, words[i], plain ? "" : made("small", null, label));
  });
  column.answer.append(made("div.words", null, ...tagged));
  sayWho(column, answer, seconds(took), counted(words.length, "word"));
}
