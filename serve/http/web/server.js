// Asking the server: with a key where one is needed, which is typed in and kept in this tab's memory alone.

import { at } from "./elements.js";

let key = null;

// What the server said instead of an answer.
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The answer to a request, a POST where it has a body.
export async function asked(path, body, signal) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const how = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const answer = await fetch(path, { ...how, headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  const message = said?.error?.message ?? `The server answered ${answer.status}.`;
  if (answer.status === 401) askForKey(message);
  throw new Refused(message, answer.status);
}

export const told = async (path) => (await asked(path)).json();

function askForKey(why) {
  if (!at("key-form").hidden) return;
  at("key-form").hidden = false;
  at("key-wrong").hidden = !key;
  at("key-wrong").textContent = why;
  at("key").focus();
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  at("key").value = "";
  at("key-form").hidden = true;
  dispatchEvent(new Event("key"));
});
