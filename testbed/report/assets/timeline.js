// All that happened on one clock: the daemons' logs, states, timers, drops, what the topology let happen, segments.

const KINDS = [["lab", "events of the lab", true], ["log", "logs", true], ["state", "states", true], ["timer", "timers", true],
               ["drop", "drops", true], ["segment", "segments", false]];
const ROW = 22, MOST_ROWS = 400000;

/** Everything but segments, in order. */
function happenings() {
  const all = [];
  if (D.placed) for (const {event, done} of D.events) if (done !== NONE) all.push({t: done, kind: "lab", who: "", text: event});
  D.logs.forEach((lines, index) => {
    let t = 0;
    for (const [stamp, text] of lines) all.push({t: (t = stamp === NONE ? t : stamp), kind: "log", who: D.nodes[index], text});
  });
  for (const [t, who, text] of D.strays) all.push({t, kind: "drop", who, text});
  for (const connection of D.connections) {
    const rows = opened(connection);
    rows.ends.forEach(({states, timers}, side) => {
      const who = nameOf(connection, side), which = D.connections.length > 1 ? `connection ${connection.number}: ` : "";
      for (let at = listened(states) ? 1 : 0; at < states.t.length; at++) all.push({t: states.t[at], kind: "state", who, text: `${which}${stateWords(D.states[states.what[at]])}`});
      for (let at = 0; at < timers.t.length; at++) {
        all.push({t: timers.t[at], kind: "timer", who, text: `${which}${D.timers[timers.what[at]].toLowerCase().replaceAll("_", " ")} timer has expired`});
      }
    });
    for (const {dropped} of rows.lists) for (const i of dropped) all.push({t: rows.at[i] + rows.way[i], kind: "drop", connection, rows, i});
  }
  return all.sort((one, other) => one.t - other.t);
}

function segmentsInZoom() {
  const all = [];
  for (const connection of D.connections) {
    const rows = opened(connection);
    for (let i = after(rows.at, zoom.min - 1e-9); i < rows.n && rows.at[i] <= zoom.max && all.length < MOST_ROWS; i++) {
      if (!(rows.kind[i] & UNSENT)) all.push({t: rows.at[i], kind: "segment", connection, rows, i, sent: true});
      if (rows.kind[i] & ARRIVED) all.push({t: rows.at[i] + (rows.kind[i] & UNSENT ? 0 : rows.way[i]), kind: "segment", connection, rows, i});
    }
  }
  return all;
}

function words(entry) {
  if (entry.text !== undefined) return [entry.who, entry.text];
  const {connection, rows, i, kind, sent} = entry, side = rows.kind[i] & 1;
  const which = D.connections.length > 1 ? `connection ${connection.number}: ` : "";
  if (kind === "drop") {
    return [D.nodes[rows.where[i]], `${which}dropped (${D.reasons[rows.why[i]]}): ${inShort(rows, i)} from ${nameOf(connection, side)}`];
  }
  return [nameOf(connection, sent ? side : 1 - side), `${which}${sent ? "sent" : "received"} ${inShort(rows, i)}`];
}

function timeline() {
  const on = Object.fromEntries(KINDS.map(([kind, , is]) => [kind, is]));
  const inner = el("div", {class: "rows"}), box = el("div", {class: "timeline", tabindex: 0, role: "log", "aria-label": "Events"}, inner);
  const told = el("span", {class: "note", "aria-live": "polite"}), search = el("input", {type: "search", placeholder: "find", "aria-label": "find in events"});
  let all = NONE, list = [], waiting = 0;

  function choose() {
    all = all || happenings();
    const wanted = search.value.toLowerCase();
    list = all.filter(({t, kind}) => on[kind] && t >= zoom.min - (zoom.min === zoom.first ? 1e9 : 0) && t <= zoom.max + (zoom.max >= zoom.last ? 1e9 : 0));
    if (on.segment) list = [...list, ...segmentsInZoom()].sort((one, other) => one.t - other.t);
    if (wanted) list = list.filter((entry) => words(entry).join(" ").toLowerCase().includes(wanted));
    told.textContent = `${several(list.length, "event")} in what the plots show${list.length > MOST_ROWS ? `, the first ${count(MOST_ROWS)} here` : ""}.`;
    list.length = Math.min(list.length, MOST_ROWS);
    inner.style.height = `${list.length * ROW}px`;
    box.scrollTop = 0;
    draw();
  }
  function draw() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5), last = Math.min(list.length, first + Math.ceil(box.clientHeight / ROW) + 10);
    const lines = [];
    for (let at = first; at < last; at++) {
      const entry = list[at], [who, text] = words(entry);
      lines.push(el("div", {class: `line ${entry.kind}`, style: `top:${at * ROW}px`},
        el("span", {class: "time"}, entry.t.toFixed(6)), el("span", {class: "who"}, who), el("span", {class: "what", title: text}, text)));
    }
    inner.replaceChildren(...lines);
  }
  box.addEventListener("scroll", draw);
  search.addEventListener("input", choose);
  zoom.followers.add(() => {
    cancelAnimationFrame(waiting);
    if (all) waiting = requestAnimationFrame(choose);
  });
  const boxes = KINDS.map(([kind, label]) => el("label", {}, el("input", {type: "checkbox", checked: on[kind],
    onchange: (event) => { on[kind] = event.target.checked; choose(); }}), ` ${label}`));
  new IntersectionObserver((entries, observer) => {
    if (entries.some(({isIntersecting}) => isIntersecting)) { observer.disconnect(); choose(); }
  }, {rootMargin: "300px"}).observe(box);
  return [el("div", {class: "buttons"}, boxes, search, " ", told), box];
}
