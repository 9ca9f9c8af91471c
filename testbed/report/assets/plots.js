// The plots: axes, cursor and zoom are uPlot's; what is in them is drawn here, as much as there are pixels for.

const shown = new Set();  // the plots that are drawn
const HEIGHT = 230;

/** Where a plot's values are on its canvas, in the canvas' pixels. */
function geometry(u) {
  const {left, top, width, height} = u.bbox, x = u.scales.x, y = u.scales.y, log = y.distr === 3;
  const of = log ? Math.log10 : (value) => value;
  const xs = width / (x.max - x.min), ys = height / (of(y.max) - of(y.min)), y0 = of(y.min);
  return {
    left, top, width, height, right: left + width, bottom: top + height, min: x.min, max: x.max, ratio: uPlot.pxRatio,
    x: (t) => left + (t - x.min) * xs,
    y: (v) => top + height - ((log ? Math.log10(Math.max(v, 1e-9)) : v) - y0) * ys,
  };
}

/** A curve of steps: of all changes in one column of pixels the least, the greatest and the last. */
function drawSteps(ctx, g, {t, v}, end) {
  const until = Math.min(g.x(end), g.right);
  let i = Math.max(0, after(t, g.min) - 1), column = NaN, low = 0, high = 0, last = NaN;
  ctx.beginPath();
  const flush = () => {
    if (Number.isNaN(last) || Number.isNaN(column)) return;
    if (high !== low) { ctx.lineTo(column, g.y(low)); ctx.lineTo(column, g.y(high)); }
    ctx.lineTo(column, g.y(last));
  };
  for (; i < t.length && t[i] <= g.max; i++) {
    const x = Math.round(Math.max(g.left, g.x(t[i]))), value = v[i];
    if (x !== column || Number.isNaN(value) !== Number.isNaN(last)) {
      flush();
      if (!Number.isNaN(last)) ctx.lineTo(x, g.y(last));
      else if (!Number.isNaN(value)) ctx.moveTo(x, g.y(value));
      column = x;
      low = high = last = value;
    } else {
      low = Math.min(low, value);
      high = Math.max(high, value);
      last = value;
    }
  }
  flush();
  if (!Number.isNaN(last)) ctx.lineTo(Math.max(until, column), g.y(last));
  ctx.stroke();
}

/** Calls mark(x, y) for those of a list that are shown; of those that fall on the same pixel once. */
function eachShown(rows, list, g, yOf, mark) {
  let lastX = NaN, lastY = NaN;
  for (let at = 0; at < list.length; at++) {
    const i = list[at], t = rows.at[i];
    if (t < g.min || t > g.max) continue;
    const x = Math.round(g.x(t)), y = Math.round(yOf(i));
    if (x === lastX && y === lastY) continue;
    lastX = x;
    lastY = y;
    mark(x, y, i);
  }
}

/** How large a cross is, in pixels of a screen: where there are very many, small. */
function crossSize(rows, list, g) {
  let shown = 0;
  for (let at = 0; at < list.length && shown < 400; at++) shown += rows.at[list[at]] >= g.min && rows.at[list[at]] <= g.max;
  return (shown < 400 ? 4 : 1.5) * g.ratio;
}

function cross(ctx, x, y, r) {
  ctx.moveTo(x - r, y - r);
  ctx.lineTo(x + r, y + r);
  ctx.moveTo(x - r, y + r);
  ctx.lineTo(x + r, y - r);
}

/** The least and greatest value that curves have in what is shown. */
function rangeOf(list) {
  let low = Infinity, high = -Infinity;
  for (const {t, v} of list) {
    for (let i = Math.max(0, after(t, zoom.min) - 1); i < t.length && t[i] <= zoom.max; i++) {
      if (v[i] < low) low = v[i];
      if (v[i] > high) high = v[i];
    }
  }
  return [low, high];
}

/**
 * One plot. `parts`: [{label, colour, dash, value(t) -> text, draw(ctx, g, u), off}], each with a button in the legend;
 * `range()` -> [least, greatest] of what is shown; `format`: of the axis.
 */
function plot({title, note, parts, range, format, log, height = HEIGHT, hover, click, label}) {
  const legend = el("div", {class: "legend"}), box = el("div", {class: "canvas", style: `min-height:${height}px`}), at = el("span", {class: "at"});
  const figure = el("figure", {class: "plot", tabindex: 0, "aria-label": `${title}. ${note}`, onkeydown: zoomKeys},
    el("figcaption", {}, el("b", {}, title), " ", el("span", {class: "note"}, note)), box, legend);
  for (const part of parts) {
    part.on = !part.off;
    part.cell = el("span", {class: "value"});
    part.button = el("button", {type: "button", "aria-pressed": String(part.on), title: "show or hide",
      onclick: () => {
        part.on = !part.on;
        part.button.setAttribute("aria-pressed", String(part.on));
        refresh();
      }}, swatch(part), ` ${part.label} `, part.cell);
    legend.append(part.button);
  }
  legend.append(at);
  let u = NONE;

  const axis = (more) => ({
    stroke: () => colours.text, grid: {stroke: () => colours.grid, width: 1}, ticks: {stroke: () => colours.grid, width: 1},
    font: "12px system-ui, sans-serif", ...more,
  });
  function make() {
    const width = Math.max(280, box.clientWidth);
    u = new uPlot({
      width, height, legend: {show: false}, padding: [8, 24, 0, 0],
      scales: {x: {time: false, auto: false}, y: {auto: false, distr: log ? 3 : 1}},
      series: [{}, {show: false}],
      axes: [axis({values: (_, ticks) => ticks.map((t) => `${trim(t.toFixed(6))} s`), size: 30, space: () => 30 + 8 * fixed(zoom.max).length}),
             axis({values: (_, ticks) => labels(ticks, format, log), size: 84})],
      cursor: {sync: {key: "time", filters: {pub: (type) => type === "mousemove" || type === "mouseleave"}}, drag: {x: true, y: false, setScale: false}, points: {show: false}, y: false},
      hooks: {
        draw: [draw],
        setSelect: [(self) => {
          if (self.select.width > 3) {
            zoom.set(self.posToVal(self.select.left, "x"), self.posToVal(self.select.left + self.select.width, "x"));
          }
          self.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
        }],
        setCursor: [point],
      },
    }, [[zoom.first, zoom.last], [NONE, NONE]], box);
    scale();
    u.over.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom.by(event.deltaY > 0 ? 1.25 : 0.8, u.posToVal(event.offsetX, "x"));
    }, {passive: false});
    u.over.addEventListener("dblclick", () => zoom.reset());
    u.over.addEventListener("mouseleave", hideTip);
    if (click) u.over.addEventListener("click", (event) => click(u, event));
    figure.plot = u;
  }
  function scale() {
    let [low, high] = range();
    if (!(high > -Infinity)) [low, high] = [0, 1];
    if (log) [low, high] = [10 ** Math.floor(Math.log10(Math.max(low, 1e-6))), 10 ** Math.ceil(Math.log10(Math.max(high, 1e-5)))];
    else if (high === low) high = low + 1;
    else high += (high - low) * 0.05;
    if (log && high <= low) high = low * 10;
    u.batch(() => {
      u.setScale("x", {min: zoom.min, max: zoom.max});
      u.setScale("y", {min: low, max: high});
    });
    rest();
  }
  function draw(self) {
    const ctx = self.ctx, g = geometry(self);
    ctx.save();
    ctx.beginPath();
    ctx.rect(g.left, g.top, g.width, g.height);
    ctx.clip();
    drawHappened(ctx, g, label === "time-sequence");
    for (const part of parts) {
      if (!part.on) continue;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colours[part.colour];
      ctx.lineWidth = (part.width || 1.5) * g.ratio;
      ctx.setLineDash((part.dash || []).map((length) => length * g.ratio));
      part.draw(ctx, g, self);
      ctx.restore();
    }
    ctx.restore();
  }
  function point(self) {
    const left = self.cursor.left;
    if (left === NONE || left < 0) {
      at.textContent = "";
      rest();
      hideTip();
      return;
    }
    const t = self.posToVal(left, "x");
    at.textContent = `at ${fixed(t)} s`;
    for (const part of parts) if (part.value) part.cell.textContent = part.value(t);
    if (hover && self.over.matches(":hover")) hover(self);
  }
  function rest() { for (const part of parts) part.cell.textContent = part.rest ? part.rest() : ""; }
  function refresh() { if (u) { scale(); u.redraw(); } }
  figure.follow = {
    refresh,
    visible: () => { if (!u) { make(); shown.add(figure); } },
    resize: () => { if (u && box.clientWidth > 0) u.setSize({width: Math.max(280, box.clientWidth), height}); },
    label,
  };
  zoom.followers.add(refresh);
  watcher.observe(figure);
  return figure;
}

// A plot is made when it comes near the window, so that a long report opens at once.
const watcher = new IntersectionObserver((entries) => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    target.follow.visible();
  }
}, {rootMargin: "250px"});

function swatch({colour, dash, mark}) {
  return svg("svg", {width: 22, height: 12, "aria-hidden": "true", class: "swatch"},
    mark === "cross" ? svg("path", {d: "M7 2l8 8M7 10l8-8", stroke: `var(--${colour})`, "stroke-width": 2})
      : mark === "bar" ? svg("path", {d: "M11 1v10M8 1h6M8 11h6", stroke: `var(--${colour})`, "stroke-width": 2})
        : svg("path", {d: "M1 6h20", stroke: `var(--${colour})`, "stroke-width": 2.5, "stroke-dasharray": (dash || []).join(" ") || NONE}));
}

/** What stands at an axis: with so many digits that no two ticks look alike. */
function labels(ticks, format, log) {
  const step = log || ticks.length < 2 ? NaN : ticks[1] - ticks[0], most = Math.max(...ticks.map(Math.abs));
  const places = step > 0 && most > 0 ? Math.max(3, Math.floor(Math.log10(most)) - Math.floor(Math.log10(step) + 1e-9) + 1) : 3;
  return ticks.map((v) => v === NONE ? "" : format(v, places));
}

/** What the topology let happen to the lab: a line at its time. */
function drawHappened(ctx, g, named) {
  if (!D.placed) return;
  ctx.save();
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.strokeStyle = ctx.fillStyle = colours.faint;
  ctx.lineWidth = g.ratio;
  ctx.setLineDash([2 * g.ratio, 3 * g.ratio]);
  ctx.font = `${11 * g.ratio}px system-ui, sans-serif`;
  const free = new Array(8).fill(-Infinity);  // where each line of text ends
  for (const {event, done} of D.events) {
    if (done === NONE || done < g.min || done > g.max) continue;
    const x = g.x(done);
    ctx.beginPath();
    ctx.moveTo(x, g.top);
    ctx.lineTo(x, g.bottom);
    ctx.stroke();
    if (!named) continue;
    for (const part of event.split("; ")) {
      const text = cut(ctx, part, g.width), wide = ctx.measureText(text).width;
      const at = Math.max(g.left, Math.min(x + 4 * g.ratio, g.right - wide)), row = free.findIndex((end) => end < at);
      if (row < 0) continue;  // there is no room; the list of events has it
      free[row] = at + wide + 8 * g.ratio;
      ctx.fillText(text, at, g.top + (12 + 13 * row) * g.ratio);
    }
  }
  ctx.restore();
}

/** As much of a text as there is room for. */
function cut(ctx, text, room) {
  let shown = text;
  while (shown.length > 1 && ctx.measureText(shown).width > room) shown = `${shown.slice(0, -2)}…`;
  return shown;
}

// ---- the plots of one direction of a connection ----

function steps(label, colour, told, end, format, more = {}) {
  return {label, colour, told, ...more,
    value: (t) => { const value = told ? valueAt(told, t) : NaN; return Number.isNaN(value) ? "–" : format(value); },
    draw: (ctx, g) => told && drawSteps(ctx, g, told, end)};
}

/** Ticks at the lower edge: when something was sent again, or dropped. */
function rug(rows, side) {
  const ticks = (label, colour, list, height) => ({label, colour, mark: colour === "drop" ? "cross" : "bar",
    draw: (ctx, g) => {
      ctx.beginPath();
      eachShown(rows, list, g, () => g.bottom - height * g.ratio, (x, y) => {
        if (colour === "drop") cross(ctx, x, y, 3 * g.ratio);
        else { ctx.moveTo(x, y - 4 * g.ratio); ctx.lineTo(x, y + 4 * g.ratio); }
      });
      ctx.stroke();
    }});
  const {again, dropped} = rows.lists[side];
  return [...(again.length ? [ticks("sent again", "again", again, 16)] : []),
          ...(dropped.length ? [ticks("dropped", "drop", dropped, 6)] : [])];
}

function timeSequence(connection, rows, side, jump) {
  const end = rows.ends[side], sender = nameOf(connection, side), last = rows.at[rows.n - 1] || 0;
  const from = side;
  let tooFar = false;
  const visible = () => [Math.max(0, after(rows.at, zoom.min - 1e-9)), after(rows.at, zoom.max)];

  function range() {
    let low = Infinity, high = -Infinity;
    tooFar = false;
    const [begin, behind] = visible();
    for (let i = begin; i < behind; i++) {
      if ((rows.kind[i] & FROM_B) !== from) continue;
      const seq = rows.seq[i];
      if (seq < low) low = seq;
      if (seq + rows.len[i] > high) high = seq + rows.len[i];
    }
    for (const told of [end.acked, ...(parts[1].on ? [end.edge] : [])]) {
      const [least, most] = rangeOf([told]);
      if (told === end.edge && high > low && most - high > 0.6 * (high - low)) {  // it would leave no room
        tooFar = true;
        continue;
      }
      low = Math.min(low, least);
      high = Math.max(high, most);
    }
    return [low, high];
  }

  function drawData(ctx, g) {
    const [begin, behind] = visible(), room = g.width / Math.max(1, behind - begin);
    const foot = room > 8 ? 3 * g.ratio : 0;
    let column = NaN, low = 0, high = 0;
    ctx.beginPath();
    const flush = () => {
      if (Number.isNaN(column)) return;
      const y1 = g.y(low), y2 = Math.min(g.y(high), y1 - g.ratio);
      ctx.moveTo(column, y1);
      ctx.lineTo(column, y2);
      if (foot && y1 - y2 > 3 * foot) {
        ctx.moveTo(column - foot, y1); ctx.lineTo(column + foot, y1);
        ctx.moveTo(column - foot, y2); ctx.lineTo(column + foot, y2);
      }
    };
    for (let i = begin; i < behind; i++) {
      const kind = rows.kind[i];
      if ((kind & FROM_B) !== from || kind & (AGAIN | SYN_FIN_AGAIN) || !(rows.len[i] || rows.flags[i] & (SYN | FIN))) continue;
      const x = Math.round(g.x(rows.at[i])), seq = rows.seq[i], top = seq + rows.len[i];
      if (x !== column) { flush(); column = x; low = seq; high = top; }
      else { if (seq < low) low = seq; if (top > high) high = top; }
    }
    flush();
    ctx.stroke();
  }

  function drawAgain(ctx, g) {
    const list = rows.lists[side].again, few = list.filter((i) => rows.at[i] >= g.min && rows.at[i] <= g.max).length < 25;
    ctx.font = `bold ${11 * g.ratio}px system-ui, sans-serif`;
    ctx.beginPath();
    eachShown(rows, list, g, (i) => g.y(rows.seq[i]), (x, y, i) => {
      ctx.moveTo(x, y);
      ctx.lineTo(x, Math.min(g.y(rows.seq[i] + rows.len[i]), y - 3 * g.ratio));
      if (few) ctx.fillText("R", x + 3 * g.ratio, y - 2 * g.ratio);
    });
    ctx.stroke();
  }

  function drawDropped(ctx, g) {
    const list = rows.lists[side].dropped;
    const r = crossSize(rows, list, g);
    ctx.beginPath();
    eachShown(rows, list, g, (i) => g.y(rows.seq[i] + rows.len[i] / 2), (x, y) => cross(ctx, x, y, r));
    ctx.stroke();
  }

  function drawSack(ctx, g) {
    ctx.beginPath();
    for (let i = visible()[0] - 1, behind = visible()[1]; i < behind; i++) {
      if (i < 0 || (rows.kind[i] & FROM_B) === from || !rows.sacks[i] || !(rows.kind[i] & ARRIVED)) continue;
      const t = rows.at[i] + (rows.kind[i] & UNSENT ? 0 : rows.way[i]);
      if (t < g.min || t > g.max) continue;
      const x = Math.round(g.x(t)), block = 2 * rows.block[i];
      ctx.moveTo(x, g.y(rows.blocks[block]));
      ctx.lineTo(x, Math.min(g.y(rows.blocks[block + 1]), g.y(rows.blocks[block]) - g.ratio));
    }
    ctx.stroke();
  }

  /** The segment that is nearest to the pointer. */
  function nearest(u) {
    const {left, top} = u.cursor, x = u.posToVal(left, "x"), perX = 7 / u.over.clientWidth * (zoom.max - zoom.min);
    let found = -1, best = 10;
    for (let i = after(rows.at, x - perX); i < rows.n && rows.at[i] <= x + perX; i++) {
      if ((rows.kind[i] & FROM_B) !== from || !(rows.len[i] || rows.flags[i] & (SYN | FIN | RST))) continue;
      const low = u.valToPos(rows.seq[i], "y"), high = u.valToPos(rows.seq[i] + rows.len[i], "y");
      const dy = top > low ? top - low : top < high ? high - top : 0;
      const distance = dy + Math.abs(u.valToPos(rows.at[i], "x") - left);
      if (distance < best) { best = distance; found = i; }
    }
    return found;
  }

  const parts = [
    steps("acknowledged", "ack", end.acked, last, count),
    steps("window", "window", end.edge, last, count, {rest: () => tooFar ? "(further up)" : ""}),
    {label: "SACK", colour: "sack", mark: "bar", draw: drawSack, width: 2},
    {label: "segments", colour: "data", mark: "bar", draw: drawData, width: 1.2},
    {label: "sent again (R)", colour: "again", mark: "bar", draw: drawAgain, width: 2.5},
    {label: "dropped", colour: "drop", mark: "cross", draw: drawDropped, width: 1.8},
  ];
  return plot({
    title: "Time and sequence",
    note: `Each bar is a segment of ${sender}: when it was sent, and which bytes it has. The green line is what was ` +
      "acknowledged, the yellow one how far the receiver's window lets it go, if that is near enough to be seen. " +
      "Click a segment to see it in the ladder below.",
    parts, range, format: (v, places) => size(v, places).replace(" B", ""), height: 340, label: "time-sequence",
    hover: (u) => {
      const i = nearest(u), {left, top} = u.over.getBoundingClientRect();
      if (i >= 0) showTip(connection, rows, i, left + u.cursor.left, top + u.cursor.top); else hideTip();
    },
    click: (u) => { const i = nearest(u); if (i >= 0) jump(i); },
  });
}

function windows(connection, rows, side) {
  const {cwnd, ssthresh, in_flight: flight} = rows.ends[side].curves, last = rows.at[rows.n - 1] || 0;
  const parts = [
    steps("in flight", "data", flight, last, size, {width: 1}),
    steps("ssthresh", "window", ssthresh, last, size, {dash: [6, 4]}),
    steps("cwnd", "ack", cwnd, last, size, {width: 2.2}),
    ...rug(rows, side),
  ];
  return plot({
    title: "Congestion window",
    note: `How much ${nameOf(connection, side)} lets itself have on the way (cwnd), how much is on the way, and up to ` +
      "where it grows fast (ssthresh: there is none before the first loss).",
    parts, format: size, label: "windows",
    range: () => [0, rangeOf(parts.filter((part) => part.on && part.told).map((part) => part.told))[1]],
  });
}

function roundTrip(connection, rows, side) {
  const {srtt, rto, min_rtt: least} = rows.ends[side].curves, last = rows.at[rows.n - 1] || 0;
  const parts = [
    steps("RTO", "again", rto, last, duration, {dash: [6, 4]}),
    steps("smoothed round trip", "data", srtt, last, duration, {width: 2}),
    steps("least", "ack", least, last, duration, {dash: [2, 3]}),
  ];
  return plot({
    title: "Round trip and time-out",
    note: `What ${nameOf(connection, side)} believes a round trip takes, and how long it waits for an acknowledgement ` +
      "before it sends again (RTO). The scale is logarithmic.",
    parts, format: duration, log: true, label: "round-trip",
    range: () => rangeOf(parts.filter((part) => part.on && part.told).map((part) => part.told)),
  });
}

function goodput(connection, rows, side) {
  const {goodput: told, goodput_width: width, wait} = rows.ends[side];
  const limit = wait === NONE ? NONE : curve(D.links[wait].rates);
  const bits = {t: told.t, v: Float64Array.from(told.v, (value) => value * 8)};
  const parts = [steps("goodput", "ack", bits, zoom.last, rate, {width: 2})];
  if (limit) {
    parts.push(steps(`rate of ${pair(D.links[wait].direction)}`, "faint", limit, zoom.last, rate, {dash: [6, 4]}));
  }
  parts.push(...rug(rows, side));
  return plot({
    title: "Goodput",
    note: `New data that came to ${nameOf(connection, 1 - side)}, each byte once, over stretches of ${duration(width)}.`,
    parts, format: rate, label: "goodput",
    range: () => [0, rangeOf(limit && parts[1].on ? [bits, limit] : [bits])[1]],
  });
}

function queue(connection, rows, side) {
  const {wait} = rows.ends[side], told = wait === NONE ? NONE : queueOf(wait);
  if (!told) return NONE;
  const way = pair(D.links[wait].direction), packets = told.packets, limits = curve(told.limits), format = packets ? (v, places) => `${digits(v, places)} pkt` : size;
  const mine = (i) => D.reasons[rows.why[i]] === "queue" && way.startsWith(`${D.nodes[rows.where[i]]} → `);
  const list = rows.lists[side].dropped.filter(mine), others = D.connections.length > 1 ? ", of all connections" : "";
  const parts = [steps("in the queue", "data", told, zoom.last, format)];
  if (limits.v.some((value) => !Number.isNaN(value))) parts.push(steps("limit", "faint", limits, zoom.last, format, {dash: [6, 4]}));
  parts.push({label: "dropped there, of this connection", colour: "drop", mark: "cross", draw: (ctx, g) => {
    ctx.beginPath();
    eachShown(rows, list, g, (i) => { const limit = valueAt(limits, rows.at[i]); return limit ? g.y(limit) : g.top + 8 * g.ratio; }, (x, y) => cross(ctx, x, y, 4 * g.ratio));
    ctx.stroke();
  }});
  return plot({
    title: `Queue before ${way}`,
    note: `What waits there${others}: computed from when each segment was sent and when it arrived, less the delays that ` +
      "were asked for. So what jitter and busy computers made late is in it, too.",
    parts, format, label: "queue", range: () => [0, rangeOf([told, limits])[1]],
  });
}

function oneWay(connection, rows, side) {
  const list = rows.lists[side].dropped, use = (i) => (rows.kind[i] & (FROM_B | ARRIVED | UNSENT)) === (side | ARRIVED);
  let low = Infinity, high = 0;
  const range = () => {
    low = Infinity; high = 0;
    for (let i = after(rows.at, zoom.min - 1e-9), behind = after(rows.at, zoom.max); i < behind; i++) {
      if (use(i)) { if (rows.way[i] < low) low = rows.way[i]; if (rows.way[i] > high) high = rows.way[i]; }
    }
    return [0, high * 1.1];  // room for what was dropped
  };
  const parts = [
    {label: "segments", colour: "data", mark: "bar", draw: (ctx, g) => {
      const seen = new Set(), r = 1.2 * g.ratio;
      for (let i = after(rows.at, g.min - 1e-9), behind = after(rows.at, g.max); i < behind; i++) {
        if (!use(i)) continue;
        const x = Math.round(g.x(rows.at[i])), y = Math.round(g.y(rows.way[i])), key = x * 65536 + y;
        if (seen.has(key)) continue;
        seen.add(key);
        ctx.fillRect(x - r, y - r, 2 * r, 2 * r);
      }
    }},
    {label: "dropped", colour: "drop", mark: "cross", draw: (ctx, g) => {
      ctx.beginPath();
      eachShown(rows, list, g, () => g.top + 7 * g.ratio, (x, y) => cross(ctx, x, y, 4 * g.ratio));
      ctx.stroke();
    }},
  ];
  return plot({
    title: "On the way",
    note: `How long each segment took from ${nameOf(connection, side)} to ${nameOf(connection, 1 - side)}; above, those ` +
      "that never came because they were dropped.",
    parts, format: duration, label: "one-way", range,
  });
}
