// The ladder diagram: two hosts, time goes down, an arrow for each segment. As many segments as fit in a page of it.

const LADDER = {most: 120, width: 860, left: 270, right: 590, top: 46};

function ladder(connection, rows) {
  const drawing = el("div", {class: "ladder scroll", tabindex: -1}), told = el("span", {class: "note", "aria-live": "polite"});
  let start = 0, marked = -1, stays = false;  // marked: the row that was last led to; -1: none on this page

  const firstInZoom = () => Math.min(after(rows.at, zoom.min - 1e-9), Math.max(0, rows.n - 1));
  function show(from, mark = -1) {
    start = Math.max(0, Math.min(from, rows.n - 1));
    marked = mark;
    const behind = Math.min(rows.n, start + LADDER.most);
    told.textContent = rows.n ? `Segments ${count(start + 1)} to ${count(behind)} of ${count(rows.n)}, from ` +
      `${rows.at[start].toFixed(6)} s to ${rows.at[behind - 1].toFixed(6)} s.` : "No segment was seen.";
    drawing.replaceChildren(drawLadder(connection, rows, start, behind, mark));
    if (mark >= 0) drawing.querySelector(`[data-row="${mark}"]`)?.focus({preventScroll: true});
  }
  function go(from, mark = -1) {
    stays = true;  // the zoom follows, and must not move the ladder again
    if (rows.at[from] < zoom.min || rows.at[from] > zoom.max) zoom.around(rows.at[from], zoom.max - zoom.min);
    stays = false;
    show(from, mark);
  }
  function next(has) {
    for (let i = marked >= 0 ? marked + 1 : start; i < rows.n; i++) if (has(rows.kind[i])) { go(Math.max(0, i - 3), i); return; }
    told.textContent = "There is none behind these.";
  }
  const button = (text, does) => el("button", {type: "button", onclick: does}, text);
  const node = el("div", {class: "ladder-box"},
    el("p", {class: "note"}, "Time goes down; each arrow is a segment, from when it was sent to when it came. A cross: it was " +
      "dropped there. Point at one, or go through them with Tab and the arrow keys, for all of its fields. Distances in time " +
      "are not to scale; the times are at the sides."),
    el("div", {class: "buttons"}, button("first", () => go(0)), button("earlier", () => go(Math.max(0, start - LADDER.most))),
      button("later", () => go(Math.min(start + LADDER.most, Math.max(0, rows.n - LADDER.most)))),
      button("last", () => go(Math.max(0, rows.n - LADDER.most))),
      button("next drop", () => next((kind) => kind & DROPPED)),
      button("next sent again", () => next((kind) => kind & (AGAIN | SYN_FIN_AGAIN))), " ", told),
    drawing);
  node.follow = () => { if (!stays && node.isConnected && node.offsetParent) show(firstInZoom()); };
  zoom.followers.add(node.follow);
  node.jump = (i) => { go(Math.max(0, i - 3), i); node.scrollIntoView({block: "nearest", behavior: "smooth"}); };
  show(firstInZoom());
  return node;
}

/** What is to be drawn, in the order in which it happened. */
function ladderEvents(connection, rows, start, behind) {
  const events = [], begin = start === 0 ? -Infinity : rows.at[start], until = behind < rows.n ? rows.at[behind] : Infinity;
  for (let i = start; i < behind; i++) {
    const side = rows.kind[i] & 1, kind = rows.kind[i];
    events.push({t: rows.at[i], what: "sent", side, i, order: 1});
    if (kind & DROPPED) events.push({t: rows.at[i] + rows.way[i], what: "dropped", side, i, order: 2});
    else if (kind & ARRIVED) events.push({t: rows.at[i] + (kind & UNSENT ? 0 : rows.way[i]), what: "came", side: 1 - side, i, order: 2});
  }
  rows.ends.forEach(({states, timers}, side) => {
    for (let at = 0; at < states.t.length; at++) {
      if (at === 0 && listened(states)) continue;  // it did before the SYN came, for which it has this end
      if (states.t[at] >= begin && states.t[at] < until) {
        events.push({t: states.t[at], what: "state", side, name: D.states[states.what[at]], order: 3});
      }
    }
    for (let at = 0; at < timers.t.length; at++) {
      if (timers.t[at] >= begin && timers.t[at] < until) {
        events.push({t: timers.t[at], what: "timer", side, name: D.timers[timers.what[at]], order: 0});
      }
    }
  });
  return events.sort((one, other) => one.t - other.t || one.order - other.order);
}

/** Where each event is drawn: its time, but so that words do not cover each other. */
function place(events) {
  const free = [LADDER.top + 8, LADDER.top + 8], gaps = [];
  let y = LADDER.top, before = NONE;
  for (const event of events) {
    const gap = before === NONE ? 0 : event.t - before;
    if (gap > 0.05) {
      y += 26;
      gaps.push({y: y - 12, text: `${duration(gap)} later`});
    } else y += Math.min(14, 2 + gap * 3000) * (gap > 0 ? 1 : 0);
    if (event.what === "sent" || event.what === "state" || event.what === "timer") {
      y = Math.max(y, free[event.side]);
      free[event.side] = y + 15;
    }
    event.y = y;
    before = event.t;
  }
  return {gaps, height: Math.max(y, ...free) + 20};
}

const listened = ({what}) => D.states[what[0]] === "LISTEN";
const stateWords = (name) => name.replace("RCVD", "RECEIVED").replaceAll("_", "-");  // as RFC 9293 spells it

function drawLadder(connection, rows, start, behind, mark) {
  const events = ladderEvents(connection, rows, start, behind), {gaps, height} = place(events);
  const x = [LADDER.left, LADDER.right], out = [-1, 1];
  const cut = innerWidth < 700 ? 90 : 0;  // on a narrow screen less room at the sides
  const picture = svg("svg", {viewBox: `${cut} 0 ${LADDER.width - 2 * cut} ${height}`, width: LADDER.width - 2 * cut, height, role: "group",
    "aria-label": `Segments between ${nameOf(connection, 0)} and ${nameOf(connection, 1)}`});
  for (const side of [0, 1]) {
    const {states} = rows.ends[side], index = after(states.t, start === 0 ? -1 : rows.at[start]) - 1;
    picture.append(
      svg("text", {x: x[side], y: 16, class: "host", "text-anchor": "middle"}, nameOf(connection, side)),
      svg("text", {x: x[side], y: 32, class: "state", "text-anchor": "middle"},
        index >= 0 ? stateWords(D.states[states.what[index]]) : states.t.length ? (listened(states) ? "LISTEN" : "CLOSED") : ""),
      svg("line", {x1: x[side], x2: x[side], y1: 38, y2: height - 6, class: "life"}));
  }
  for (const {y, text} of gaps) picture.append(svg("text", {x: (x[0] + x[1]) / 2, y: y + 4, class: "gap", "text-anchor": "middle"}, `⋮ ${text} ⋮`));
  const sent = new Map(), anchor = ["end", "start"];
  for (const event of events) {
    const {side, y, i} = event, at = x[side] + out[side] * 10;
    if (event.what === "sent") {
      sent.set(i, event);
    } else if (event.what === "state") {
      picture.append(svg("circle", {cx: x[side], cy: y, r: 4, class: "state-mark"}),
        svg("text", {x: at, y: y + 4, class: "state", "text-anchor": anchor[side]}, stateWords(event.name)));
    } else if (event.what === "timer") {
      picture.append(svg("circle", {cx: x[side], cy: y, r: 3, class: "timer-mark"}),
        svg("text", {x: at, y: y + 4, class: "timer", "text-anchor": anchor[side]}, `${event.name.toLowerCase().replaceAll("_", " ")} timer`));
    }
  }
  const ended = new Map(events.filter(({what}) => what === "came" || what === "dropped").map((event) => [event.i, event]));
  for (const [i, event] of sent) picture.append(arrow(connection, rows, i, event, ended.get(i), x, out, i === mark));
  if (mark < 0) picture.querySelector(".segment")?.setAttribute("tabindex", 0);
  picture.addEventListener("keydown", walk);
  return picture;
}

function arrow(connection, rows, i, sent, end, x, out, marked) {
  const kind = rows.kind[i], side = sent.side, from = x[side], to = x[1 - side], y1 = sent.y;
  const dropped = kind & DROPPED, came = end && end.what === "came";
  const part = dropped ? 0.62 : came ? 1 : 0.8, y2 = dropped ? y1 + 10 : came ? Math.max(end.y, y1) : y1 + 10;
  const tipX = from + (to - from) * part, towards = Math.sign(to - from);
  const kindOf = kind & (AGAIN | SYN_FIN_AGAIN) ? "again" : rows.len[i] ? "data" : rows.flags[i] & RST ? "reset" : "ack";
  const words = `${inShort(rows, i)}${kindOf === "again" ? " again" : ""}`;
  const why = dropped ? `${D.reasons[rows.why[i]]}, at ${D.nodes[rows.where[i]]}` : "";
  const time = rows.at[i].toFixed(4);
  return svg("g", {class: `segment ${kindOf}${dropped ? " dropped" : ""}${marked ? " marked" : ""}`, tabindex: marked ? 0 : -1,
    "data-row": i, role: "img", "aria-label": `${time} s, ${nameOf(connection, side)}: ${words}${why ? `, dropped: ${why}` : ""}`,
    onmouseenter: (event) => showTip(connection, rows, i, event.clientX, event.clientY), onmouseleave: hideTip, onblur: hideTip,
    onfocus: (event) => {
      const {left, bottom, width} = event.target.getBoundingClientRect();
      if (event.target.matches(":focus-visible")) showTip(connection, rows, i, left + width / 2, bottom);
    }},
  svg("line", {x1: from, y1, x2: tipX, y2, class: "hit"}),
  svg("line", {x1: from, y1, x2: tipX, y2, class: "way", "stroke-dasharray": came || dropped ? NONE : "4 3"}),
  came ? svg("path", {d: `M${tipX} ${y2}l${-8 * towards} -4l0 8z`, class: "head",
    transform: `rotate(${Math.atan2(y2 - y1, Math.abs(to - from)) * 180 / Math.PI * towards} ${tipX} ${y2})`}) : NONE,
  dropped ? svg("path", {d: `M${tipX - 5} ${y2 - 5}l10 10M${tipX - 5} ${y2 + 5}l10 -10`, class: "cross"}) : NONE,
  dropped ? svg("text", {x: tipX + 9 * towards, y: y2 + 4, class: "why", "text-anchor": towards > 0 ? "start" : "end"}, why) : NONE,
  svg("text", {x: from + out[side] * 10, y: y1 + 4, "text-anchor": side ? "start" : "end", class: "words"},
    side ? [svg("tspan", {class: "time"}, time), `  ${words}`] : [`${words}  `, svg("tspan", {class: "time"}, time)]));
}

/** From segment to segment with the arrow keys. */
function walk(event) {
  const by = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[event.key];
  if (!by) return;
  const all = [...event.currentTarget.querySelectorAll(".segment")], at = all.indexOf(document.activeElement);
  const to = all[at + by];
  if (!to) return;
  event.preventDefault();
  for (const segment of all) segment.setAttribute("tabindex", segment === to ? 0 : -1);
  to.focus();
}
