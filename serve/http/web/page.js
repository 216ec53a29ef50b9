// The page's script: which view is shown, and looking once a second at what goes on.

import { lookUp, show, state } from "./catalogue.js";
import { at } from "./elements.js";
import { askAdapter, begin } from "./playground.js";
import { Refused, told } from "./server.js";
import { drawTraffic, remember } from "./traffic.js";
import { lookAtJobs } from "./training.js";

const EVERY = 1000; // ms between two looks; three times that while nobody answers
const LOOKED_UP_EVERY = 3; // looks at the traffic for one at the catalogue, so that what is pushed shows by itself
const VIEWS = ["catalogue", "playground", "training", "traffic"];

// #/VIEW, #/VIEW/NAME, and of a version #/catalogue/NAME?NUMBER
function turn() {
  const match = location.hash.match(/^#\/(\w+)(?:\/([^?]*))?(?:\?(\d+))?$/);
  if (location.hash && !match) return; // the link to the content
  const view = VIEWS.includes(match?.[1]) ? match[1] : "catalogue";
  const name = decoded(match?.[2]);
  for (const one of VIEWS) at(one).hidden = one !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "catalogue") show(name, match?.[3] ? Number(match[3]) : null);
  if (view === "playground" && name) {
    history.replaceState(null, "", "#/playground");
    if (state.base) askAdapter(name);
  }
  if (view === "traffic") drawTraffic();
  if (view === "training") look();
}

// The name in an address; null where there is none, or somebody has cut it.
function decoded(text) {
  try {
    return text ? decodeURIComponent(text) : null;
  } catch {
    return null;
  }
}

let away = false;
let looks = 0;

async function look() {
  try {
    const seen = await told("traffic");
    const known = !away && looks++ % LOOKED_UP_EVERY;
    away = false;
    notice(seen.degraded.join("; "));
    const underWay = seen.running + seen.waiting;
    sayStatus(seen.status, `${seen.status} · ${underWay ? `${underWay} under way` : "idle"}`);
    remember(seen);
    if (!at("traffic").hidden) drawTraffic();
    document.querySelector('nav a[href="#/training"]').hidden = !seen.offers.includes("jobs");
    if (!at("training").hidden && seen.offers.includes("jobs")) await lookAtJobs();
    if (!known) await lookUp();
  } catch (error) {
    if (error instanceof Refused) return sayStatus("", error.status === 401 ? "a key is needed" : error.message);
    away = true;
    sayStatus("gone", "no answer");
    notice("The server does not answer. This page goes on trying, and shows what it knew last.");
  }
}

function notice(text) {
  at("away").hidden = !text;
  if (at("away").textContent !== text) at("away").textContent = text;
}

function sayStatus(is, text) {
  at("status").dataset.is = is;
  if (at("status-text").textContent !== text) at("status-text").textContent = text;
}

async function watch() {
  if (!document.hidden) await look();
  setTimeout(watch, away ? 3 * EVERY : EVERY);
}

addEventListener("hashchange", turn);
addEventListener("key", look);
addEventListener("known", begin, { once: true });
turn();
watch();
