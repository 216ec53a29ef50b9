// The picture that is to be asked: a file that is chosen, dropped or pasted, which is shown, and stays in this tab until it is asked.

import { at } from "./elements.js";

let file = null;

export const focusPicture = () => at("picture").focus();

// The picture as a data: URL, which is what the server takes; null where none is chosen, or it can be read no more.
export async function chosen() {
  if (!file) return null;
  const reader = new FileReader();
  const read = new Promise((done) => (reader.onloadend = done));
  reader.readAsDataURL(file);
  await read;
  if (reader.error) say(`${file.name} cannot be read any more.`);
  return reader.result;
}

function say(wrong) {
  at("picture-wrong").textContent = wrong;
  at("picture-wrong").hidden = !wrong;
}

function choose(files) {
  if (!files.length) return;
  const picture = [...files].find((one) => one.type.startsWith("image/"));
  say(picture ? "" : `${files[0].name} is no picture.`);
  if (!picture) return;
  file = picture;
  URL.revokeObjectURL(at("preview").src);
  at("preview").src = URL.createObjectURL(file);
  at("preview").alt = `The picture that is asked: ${file.name}`;
  at("preview").hidden = false;
}

at("picture").addEventListener("change", () => choose(at("picture").files));
at("of-picture").addEventListener("dragover", (event) => {
  event.preventDefault();
  at("of-picture").classList.add("over");
});
at("of-picture").addEventListener("dragleave", () => at("of-picture").classList.remove("over"));
at("of-picture").addEventListener("drop", (event) => {
  event.preventDefault();
  at("of-picture").classList.remove("over");
  choose(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (!at("of-picture").hidden) choose(event.clipboardData?.files ?? []);
});
