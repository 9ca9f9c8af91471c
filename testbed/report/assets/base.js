// What all other files use: the report's data and columns, elements, numbers as people write them.
// The files here are put one behind the other into one function: testbed/report/page.py.

const D = JSON.parse(document.getElementById("data").textContent);
const NONE = null;

// ---- columns: typed arrays, from bytes that stand in planes (segments.py) ----

let blob;

async function unpack() {
  const text = document.getElementById("columns").textContent;
  let packed;
  if (Uint8Array.fromBase64) {
    packed = Uint8Array.fromBase64(text);
  } else {
    const raw = atob(text);
    packed = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) packed[i] = raw.charCodeAt(i);
  }
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  blob = new Uint8Array(await new Response(stream).arrayBuffer());
}

const SIZES = {B: 1, H: 2, I: 4, i: 4, q: 8, d: 8};

function column([place, count, letter]) {
  const size = SIZES[letter];
  if (size === 1) return blob.subarray(place, place + count);
  if (letter === "q" && blob[place + 7 * count] === 0) {
    const small = smallNumbers(place, count);
    if (small) return small;
  }
  const bytes = new Uint8Array(count * size);
  for (let plane = 0; plane < size; plane++) {
    const from = place + plane * count;
    for (let i = 0, to = plane; i < count; i++, to += size) bytes[to] = blob[from + i];
  }
  if (letter === "H") return new Uint16Array(bytes.buffer);
  if (letter === "I") return new Uint32Array(bytes.buffer);
  if (letter === "i") return new Int32Array(bytes.buffer);
  if (letter === "d") return new Float64Array(bytes.buffer);
  const low = new Uint32Array(bytes.buffer), high = new Int32Array(bytes.buffer), out = new Float64Array(count);
  for (let i = 0; i < count; i++) out[i] = low[2 * i] + high[2 * i + 1] * 4294967296;
  return out;
}

/** A column of numbers whose highest bytes are all 0, as those of nearly all are; null if they are not. */
function smallNumbers(place, count) {
  const plane = (number) => blob.subarray(place + number * count, place + (number + 1) * count);
  for (const number of [7, 6]) if (plane(number).some((byte) => byte)) return NONE;
  const out = new Float64Array(count), [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(plane);
  for (let i = 0; i < count; i++) out[i] = (a[i] | b[i] << 8 | c[i] << 16) + d[i] * 16777216 + (e[i] | f[i] << 8) * 4294967296;
  return out;
}

/** A column of microseconds in seconds. */
function seconds(reference) {
  const t = Float64Array.from(column(reference));
  for (let i = 0; i < t.length; i++) t[i] *= 1e-6;
  return t;
}

const curve = ([t, v]) => ({t: seconds(t), v: column(v)});
const times = ([t, what]) => ({t: seconds(t), what: column(what)});

/** The first index whose value is greater than x. */
function after(sorted, x) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= x) low = middle + 1; else high = middle;
  }
  return low;
}

/** The value of a curve at x: that of its last change; NaN before the first. */
function valueAt({t, v}, x) {
  const index = after(t, x) - 1;
  return index < 0 ? NaN : v[index];
}

// ---- elements: text becomes text, whatever is in it ----

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== NONE && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(3).filter((child) => child !== NONE && child !== undefined && child !== false));
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function table(head, rows, attributes = {}) {
  return el("div", {class: "scroll"}, el("table", attributes,
    el("thead", {}, el("tr", {}, head.map((cell) => el("th", {scope: "col"}, cell)))),
    el("tbody", {}, rows)));
}

const cells = (values, numbers = []) => values.map((value, at) =>
  el("td", numbers.includes(at) ? {class: "number"} : {}, value instanceof Node || Array.isArray(value) ? value : String(value)));

// ---- numbers ----

const trim = (text) => text.includes(".") ? text.replace(/\.?0+$/, "") : text;
const digits = (value, count = 3) => value === 0 ? "0" : trim(Number(value.toPrecision(count)).toFixed(
  Math.max(0, Math.min(9, count - 1 - Math.floor(Math.log10(Math.abs(value)))))));

function scaled(value, units, places = 3) {
  if (value === NONE || value === undefined || Number.isNaN(value)) return "–";
  const [factor, unit] = units.find(([least]) => Math.abs(value) >= least) || units[units.length - 1];
  return `${digits(value / factor, places)} ${unit}`;
}

const duration = (value, places) => value === 0 ? "0 s" : scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]], places);
const rate = (value, places) => scaled(value, [[1e9, "Gbit/s"], [1e6, "Mbit/s"], [1e3, "kbit/s"], [1, "bit/s"]], places);
const size = (value, places) => scaled(value, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]], places);
const share = (value) => `${digits(value * 100)} %`;
const count = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
const clock = (t) => `${t.toFixed(6)} s`;
const pair = (direction) => direction.replace("->", " → ");
const several = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

// ---- colours: those of the style sheet, which has two themes ----

let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["text", "faint", "grid", "paper", "data", "again", "ack", "window", "sack", "drop", "second", "third"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}
