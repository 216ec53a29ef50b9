// Elements, and numbers as people read them. What adapters are called, and all that they say, was written by others: it becomes
// text, never HTML.

export const at = (id) => document.getElementById(id);

// An element with properties, and children that are elements or become text; what is null, false or empty is left out.
export function made(tag, properties, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false && child !== ""));
  return element;
}

const CARD = new Set("p h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong a hr table thead tbody tr th td".split(" "));
const LOWER = { h1: "h4", h2: "h4", h3: "h5", h4: "h5", h5: "h6", h6: "h6" }; // a card's headings, below the page's own

// What a node of a card's tree stands for (serve/http/markdown.py).
export function grown(node) {
  if (typeof node === "string") return node;
  const children = node.children.map(grown);
  if (!CARD.has(node.tag)) return children;
  const link = node.tag === "a" ? { href: node.href, rel: "noopener noreferrer nofollow", target: "_blank" } : null;
  const element = made(LOWER[node.tag] ?? node.tag, link, ...children);
  return node.tag === "table" ? made("div.scroll", null, element) : element;
}

// A table of lines, each of as many cells as there are heads; wider than its place it can be scrolled.
export function table(id, heads, lines) {
  const head = made("tr", null, ...heads.map((text) => made("th", { scope: "col" }, text)));
  const body = lines.map((cells) => made("tr", null, ...cells.map((cell) => made("td", null, cell))));
  return made("div.scroll", { tabIndex: 0 }, made("table", { id }, made("thead", null, head), made("tbody", null, ...body)));
}

export const counted = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
export const short = (digest) => digest.replace("sha256:", "").slice(0, 12);
export const seconds = (value) => (value == null ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);
export const rate = (value) => (value == null ? "–" : value >= 10 ? value.toFixed(0) : value.toFixed(1));
export const score = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4, useGrouping: false });
export const day = (moment) => (moment ?? "").slice(0, 10);
export const bytes = (count) => (count < 1e6 ? `${Math.ceil(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`);

// The tags of a name, with the version that each points to, or the shares of several.
export function tagsOfName(tags) {
  return Object.entries(tags).map(([tag, shares]) => {
    const versions = Object.entries(shares).map(([version, share]) => (share < 1 ? `${version} ${Math.round(share * 100)}%` : version));
    return made("span.tag", null, `${tag} → ${versions.join(", ")}`);
  });
}

// Those that point to one version, with its share.
export const tagsOfVersion = (tags) =>
  Object.entries(tags).map(([tag, share]) => made("span.tag", null, share < 1 ? `${tag} ${Math.round(share * 100)}%` : tag));

export const address = (name) => name.split("/").map(encodeURIComponent).join("/");
