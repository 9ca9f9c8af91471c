// A connection's columns, unpacked when they are first asked for.

const FROM_B = 1, AGAIN = 2, SYN_FIN_AGAIN = 4, DROPPED = 8, ARRIVED = 16, DUPLICATE = 32, UNSENT = 64, STAMPED = 128;
const FLAGS = [[2, "SYN"], [1, "FIN"], [4, "RST"], [8, "PSH"], [32, "URG"], [16, "ACK"]];
const SYN = 2, FIN = 1, RST = 4, ACK = 16;

function opened(connection) {
  if (connection.opened) return connection.opened;
  const rows = {};
  for (const [name, reference] of Object.entries(connection.rows)) {  // each when it is first asked for
    Object.defineProperty(rows, name, {configurable: true, get: () => {
      const value = name === "at" || name === "way" ? seconds(reference) : column(reference);
      Object.defineProperty(rows, name, {value});
      return value;
    }});
  }
  const n = rows.at.length;
  rows.n = n;
  rows.block = new Uint32Array(n + 1);
  for (let i = 0; i < n; i++) rows.block[i + 1] = rows.block[i] + rows.sacks[i];
  rows.blocks = column(connection.blocks);
  const lists = [0, 1].map(() => ({again: [], dropped: []}));
  for (let i = 0; i < n; i++) {
    const kind = rows.kind[i];
    if (kind & (AGAIN | SYN_FIN_AGAIN)) lists[kind & 1].again.push(i);
    if (kind & DROPPED) lists[kind & 1].dropped.push(i);
  }
  rows.lists = lists.map(({again, dropped}) => ({again: Uint32Array.from(again), dropped: Uint32Array.from(dropped)}));
  rows.ends = connection.ends.map((end) => ({
    ...end,
    curves: Object.fromEntries(Object.entries(end.curves).map(([name, references]) => [name, curve(references)])),
    acked: curve(end.acked), edge: curve(end.edge), goodput: curve(end.goodput),
    states: times(end.states), timers: times(end.timers),
  }));
  connection.opened = rows;
  return rows;
}

const queues = new Map();

function queueOf(link) {
  const told = D.queues.find((queue) => queue.link === link);
  if (told && !queues.has(link)) queues.set(link, {...told, ...curve([told.t, told.v])});
  return queues.get(link);
}

const flagNames = (flags) => FLAGS.filter(([bit]) => flags & bit).map(([, name]) => name).join(" ") || "none";
const nameOf = (connection, side) => connection.directions[side].from.node;

/** A segment in a few words: what it carries, or what it acknowledges. */
function inShort(rows, i) {
  const flags = rows.flags[i], words = FLAGS.slice(0, 3).filter(([bit]) => flags & bit).map(([, name]) => name);
  if (rows.len[i]) words.push(`data ${rows.seq[i]}–${rows.seq[i] + rows.len[i]}`);
  if (flags & ACK && (words.length === 0 || flags & (SYN | FIN | RST))) words.push(`ACK ${rows.ack[i]}`);
  return words.join(" ") || `seq ${rows.seq[i]}`;
}

/** All fields of a segment, for whoever points at it: [name, value] each. */
function allFields(connection, rows, i) {
  const side = rows.kind[i] & 1, kind = rows.kind[i], end = rows.ends[side], other = rows.ends[1 - side];
  const absolute = (number, isn) => isn === NONE ? "" : ` (${(((number + isn) % 4294967296) + 4294967296) % 4294967296})`;
  const shift = connection.scaled && !(rows.flags[i] & SYN) ? end.scale : 0;
  const fields = [["from", `${nameOf(connection, side)}, ${connection.directions[side].from.address}`],
    ["to", `${nameOf(connection, 1 - side)}, ${connection.directions[1 - side].from.address}`]];
  if (kind & UNSENT) fields.push(["sent", "not seen"]);
  else fields.push(["sent", clock(rows.at[i])]);
  if (kind & ARRIVED) fields.push(["arrived", kind & UNSENT ? clock(rows.at[i]) : `after ${duration(rows.way[i])}`]);
  if (kind & DROPPED) {
    fields.push(["dropped", `${D.reasons[rows.why[i]]}, at ${D.nodes[rows.where[i]]}, after ${duration(rows.way[i])}`]);
  }
  if (!(kind & (ARRIVED | DROPPED))) fields.push(["arrived", "not seen to"]);
  if (kind & DUPLICATE) fields.push(["doubled", "came more than once"]);
  fields.push(["flags", flagNames(rows.flags[i])], ["seq", `${rows.seq[i]}${absolute(rows.seq[i], end.isn)}`]);
  if (rows.flags[i] & ACK) fields.push(["ack", `${rows.ack[i]}${absolute(rows.ack[i], other.isn)}`]);
  fields.push(["data", `${several(rows.len[i], "byte")}${kind & AGAIN ? ", sent before" : ""}`]);
  fields.push(["window", shift ? `${rows.wnd[i]} × ${2 ** shift} = ${rows.wnd[i] * 2 ** shift}` : `${rows.wnd[i]}`]);
  if (kind & STAMPED) fields.push(["timestamp", `${rows.tsval[i]}, echoes ${rows.tsecr[i]}`]);
  for (let at = rows.block[i]; at < rows.block[i + 1]; at++) {
    fields.push(["SACK", `${rows.blocks[2 * at]}–${rows.blocks[2 * at + 1]}`]);
  }
  const [mss, scale, permitted] = connection.options[i] || [];
  if (mss) fields.push(["MSS", mss]);
  if (scale !== NONE && scale !== undefined) fields.push(["window scale", `× ${2 ** scale}`]);
  if (permitted) fields.push(["SACK", "permitted"]);
  return fields;
}

// ---- what is shown of a segment beside the pointer ----

const tip = el("div", {class: "tip", role: "tooltip", id: "tip", hidden: true});

function showTip(connection, rows, i, x, y) {
  tip.replaceChildren(el("b", {}, inShort(rows, i)), el("table", {}, allFields(connection, rows, i).map(([name, value]) =>
    el("tr", {}, el("th", {scope: "row"}, name), el("td", {}, String(value))))));
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(4, y + 14 + height > innerHeight ? y - height - 10 : y + 14)}px`;
}

function hideTip() { tip.hidden = true; }
