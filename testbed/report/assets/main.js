// The page: what came out of it first, then the network, then each connection, then everything.

const section = (id, title, note, ...children) => el("section", {id, "aria-labelledby": `${id}-title`},
  el("h2", {id: `${id}-title`}, title), note ? el("p", {class: "note"}, note) : NONE, ...children);
const badge = (ok, yes, no) => el("span", {class: ok ? "badge good" : "badge bad"}, ok ? `✓ ${yes}` : `✗ ${no}`);
const total = (of) => Object.values(of).reduce((sum, value) => sum + value, 0);
const reasons = (of) => total(of) ? Object.entries(of).map(([why, number]) => `${count(number)} ${why}`).join(", ") : "none";

function header() {
  // A simulation has no date, no duration and no kernel: its files are the same each time.
  const when = D.run_id.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z.*/, "$1-$2-$3 $4:$5:$6 UTC");
  return el("header", {}, el("h1", {}, D.lab, " ", D.status === NONE ? el("span", {class: "badge"}, D.verdict) : badge(D.status === 0, "passed", D.verdict)),
    el("p", {class: "note"}, (D.status === NONE ? `Run ${when}. ` : `Run ${when === D.run_id ? "on " : `${when}, `}backend ${D.backend.name}, seed ${D.seed}${D.run_seconds ? `, ${digits(D.run_seconds)} s` : ""}. `) +
      Object.entries(D.versions).filter(([, version]) => version !== "none").map(([name, version]) => `${name} ${/^[0-9a-f]{64}$/.test(version) ? version.slice(0, 12) : version}`).join(", ")));
}

function summary() {
  const ways = D.connections.flatMap((connection) => connection.directions), best = Math.max(0, ...ways.map((way) => way.bits_per_second));
  const data = ways.reduce((sum, way) => sum + way.data_segments, 0);
  const tile = (id, value, label, more) => el("div", {class: "tile", id}, el("b", {}, value), el("span", {}, label), more ? el("small", {}, more) : NONE);
  return section("summary", "In short", "",
    D.failure ? el("p", {class: "trouble"}, D.failure) : NONE, D.error ? el("p", {class: "trouble"}, D.error) : NONE,
    el("div", {class: "tiles"},
      tile("tile-bytes", size(D.bytes), "arrived", `data of ${several(D.connections.length, "connection")}, each byte once`),
      tile("tile-goodput", best ? rate(best) : "–", "best goodput", "of one direction of a connection"),
      tile("tile-segments", count(D.segments), "segments sent", `${count(data)} with data`),
      tile("tile-retransmissions", count(D.retransmissions), "sent again", data ? `${share(D.retransmissions / data)} of those with data` : ""),
      tile("tile-dropped", count(total(D.dropped)), "dropped", total(D.dropped) ? reasons(D.dropped) : "")),
    D.checks.length ? table(["", "check", "what was found"], D.checks.map(({check, ok, message, comparisons}) =>
      el("tr", {class: ok ? "" : "bad"}, cells([badge(ok, "pass", "FAIL"), check, [message,
        comparisons.map(({file, sent, received}) => el("details", {}, el("summary", {}, `SHA-256 of ${file}`),
          el("code", {}, `sent ${sent}`), el("br"), el("code", {}, `received ${received || "nothing"}`)))]]))), {class: "checks"})
      : el("p", {}, "There are no verdicts: the topology asks for no check, or the run was cut short."),
    D.notes.map((text) => el("p", {class: "told"}, `Note: ${text}`)));
}

/** By how much a measured link may differ from what was asked: testbed/backends/base.py. */
const offBy = ({asked_rtt: asked, measured_rtt: measured}) => Math.abs(measured - asked) > Math.max(0.001, 0.02 * asked)
  ? duration(Math.max(0.001, 0.02 * asked)) : "3 %";

function links() {
  const rows = D.links.map((link) => {
    const probe = D.probes.find(({direction, link: name}) => direction === link.direction && name === link.link);
    const measured = probe ? [`round trip ${duration(probe.measured_rtt)} (asked ${duration(probe.asked_rtt)})`,
      probe.asked_rate !== NONE ? `, rate ${probe.measured_rate === NONE ? "not measured" : rate(probe.measured_rate)}` : ""].join("") : "–";
    return el("tr", {}, cells([pair(link.direction), asked(link.asked).join(", ") || "nothing", measured,
      probe ? badge(probe.good, "as asked", `off by more than ${offBy(probe)}`) : "", count(link.dropped),
      [...new Set([link.mechanism.delay_jitter_rate, link.mechanism.all_else])].filter((name) => name !== "none").join(", ")], [4]));
  });
  return table(["link", "asked, one way", "measured before the applications began", "", "dropped", "by"], rows, {class: "links"});
}

function network() {
  return section("network", "The network", "Boxes are hosts with their applications below, circles are routers. At the links: what the topology asks of them, each way.",
    topology(), D.links.length ? links() : NONE,
    D.events.length ? [el("h3", {}, "What the topology let happen"), table(["at", "what", "done at"], D.events.map(({at, event, done}) =>
      el("tr", {}, cells([duration(at), event, done === NONE ? "not done" : `${done.toFixed(3)} s`]))))] : NONE);
}

const mainSide = ({directions}) => directions[1].bytes > directions[0].bytes ? 1 : 0;

const MOST_CONNECTIONS = 100;
const mainBytes = (connection) => connection.directions[mainSide(connection)].bytes;

function connections() {
  const sorted = [...D.connections].sort((a, b) => mainBytes(b) - mainBytes(a) || a.number - b.number), inside = el("div", {});
  function show(most) {
    const shown = sorted.slice(0, most), left = sorted.length - shown.length;
    inside.replaceChildren(...[
      left ? el("p", {}, `These are the ${most} with the most data of ${count(sorted.length)}. `,
        el("button", {type: "button", onclick: () => show(Infinity)}, "show all")) : NONE,
      shown.length ? connectionTable([...shown].sort((a, b) => a.number - b.number)) : NONE,
      ...shown.map((connection, at) => connectionOf(connection, at < 2)),
    ].filter(Boolean));
  }
  show(MOST_CONNECTIONS);
  return section("connections", "Connections", D.connections.length ? "Both directions of each. Goodput: new data, from its first arrival to the last. A number leads to its plots." : "No connection was seen.", inside);
}

function connectionTable(shown) {
  const link = ({number}) => el("a", {href: `#connection-${number}`, onclick: () => { document.getElementById(`connection-${number}`).open = true; }}, `${number}`);
  return table(["", "from", "to", "arrived", "goodput", "segments", "sent again", "dropped", "least round trip", "began", "its last state"],
    shown.flatMap((connection) => connection.directions.map((way, side) => el("tr", {class: side ? "" : "first"}, cells([
      side ? "" : link(connection), way.from.node, way.to.node, size(way.bytes), way.bits_per_second ? rate(way.bits_per_second) : "–",
      count(way.segments), count(way.retransmissions), reasons(way.dropped), way.min_rtt === NONE ? "–" : duration(way.min_rtt),
      side || connection.begins === NONE ? "" : `${connection.begins.toFixed(3)} s`, way.state ? stateWords(way.state) : "–"], [3, 4, 5, 6])))));
}

function connectionOf(connection, open) {
  const [first, second] = connection.directions, inside = el("div", {});
  const node = el("details", {id: `connection-${connection.number}`, class: "connection", open,
    ontoggle: () => { if (node.open && !inside.hasChildNodes()) build(mainSide(connection)); }},
  el("summary", {}, el("h3", {}, `Connection ${connection.number}: ${first.from.node} and ${second.from.node}`),
    el("span", {class: "note"}, ` ${first.from.address} opened it to ${second.from.address}`)), inside);
  let drawn = [], steps = NONE;
  function build(side) {
    const rows = opened(connection);
    if (steps) zoom.followers.delete(steps.follow);
    steps = ladder(connection, rows);
    for (const figure of drawn) { zoom.followers.delete(figure.follow.refresh); shown.delete(figure); figure.plot?.destroy(); }
    drawn = [timeSequence(connection, rows, side, steps.jump), windows(connection, rows, side), roundTrip(connection, rows, side),
      goodput(connection, rows, side), queue(connection, rows, side), oneWay(connection, rows, side)].filter(Boolean);
    const choice = el("fieldset", {class: "buttons"}, el("legend", {}, "The plots show what this end sends:"),
      [0, 1].map((which) => el("label", {}, el("input", {type: "radio", name: `side-${connection.number}`, checked: which === side,
        onchange: () => build(which)}), ` ${nameOf(connection, which)} `, el("span", {class: "note"}, `(${size(connection.directions[which].bytes)})`))));
    inside.replaceChildren(choice, ...drawn, el("h4", {}, `Ladder diagram: ${first.from.node} and ${second.from.node}`), steps);
  }
  if (open) build(mainSide(connection));
  return node;
}

const ENDED = {"by itself": "ended by itself", stopped: "was stopped at the end of the run", "timed out": "took too long and was stopped",
  "not started": "was not started", running: "nobody knows how it ended"};

function apps() {
  const output = (name, text) => text ? el("details", {open: text.length < 400}, el("summary", {}, name), el("pre", {}, text)) : NONE;
  return D.apps.length === 0 ? NONE : section("apps", "Applications", "", D.apps.map((app) => {
    const wrong = app.expected !== NONE && app.status !== app.expected;
    return el("div", {class: "app"}, el("h3", {}, app.name, el("span", {class: "note"}, ` on ${app.host}`)),
      el("p", {}, el("code", {}, app.command.join(" ")), el("br"),
        el("span", {class: wrong ? "bad" : ""}, `${ENDED[app.ended] || app.ended}${app.status === NONE ? "" : `, status ${app.status}`}, after ${digits(app.seconds)} s`)),
      output("standard output", app.stdout), output("standard error", app.stderr));
  }));
}

function everything() {
  const missing = [D.unreadable ? `${several(D.unreadable, "line")} of the traces could not be read.` : "",
    D.left_out ? `${several(D.left_out, "event")} of more connections, or of more drops that belong to none, than are told here are left out.` : ""].filter(Boolean);
  return section("events", "Everything, on one clock", "Seconds from the start of the first application, as in all plots, in the ladder and in testbed ladder. What is listed is what the plots show: zoom, and it follows.",
    missing.map((text) => el("p", {class: "trouble"}, text)), timeline());
}

// ---- the bar that stays at the top ----

const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  recolour();
}

function recolour() {
  readColours();
  for (const figure of shown) figure.plot.redraw(false);
}

function bar() {
  const told = el("span", {class: "range", "aria-live": "polite"}), theme = el("button", {type: "button", id: "theme", title: "light or dark"}, "theme: auto");
  let at = 0;
  theme.addEventListener("click", () => { at = (at + 1) % 3; theme.textContent = `theme: ${THEMES[at]}`; setTheme(THEMES[at]); });
  const button = (text, label, does) => el("button", {type: "button", "aria-label": label, title: label, onclick: does}, text);
  const tell = () => { told.textContent = `${fixed(zoom.min)} – ${fixed(zoom.max)} s`; };
  zoom.followers.add(tell);
  tell();
  return el("nav", {class: "bar"}, el("span", {class: "jumps"}, [["network", "network"], ["connections", "connections"], ["apps", "applications"], ["events", "everything"]].map(([id, text]) => id === "apps" && !D.apps.length ? NONE : el("a", {href: `#${id}`}, text))),
    el("span", {class: "zoom", role: "group", "aria-label": "what all plots show"}, button("←", "earlier", () => zoom.pan(-0.4)), button("→", "later", () => zoom.pan(0.4)),
      button("+", "zoom in", () => zoom.by(0.5)), button("−", "zoom out", () => zoom.by(2)), button("all", "show the whole run", () => zoom.reset()), told),
    theme);
}

async function main() {
  const report = document.getElementById("report");
  readColours();
  zoom.reset();
  report.append(header(), summary(), network());
  if (!window.DecompressionStream) {
    report.append(el("p", {class: "trouble"}, "This browser is too old for the plots: it has no DecompressionStream."));
    return;
  }
  await unpack();
  report.prepend(bar());
  report.append(...[connections(), el("p", {class: "note hint"}, "Plots: drag to zoom in, double-click to see all; Ctrl and the wheel zoom, too. With the keyboard: Tab to a plot, then ← → + − 0."),
    apps(), everything(), tip].filter(Boolean));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  addEventListener("resize", () => { for (const figure of shown) figure.follow.resize(); });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  let before;
  addEventListener("beforeprint", () => {
    before = document.documentElement.getAttribute("data-theme");
    document.documentElement.setAttribute("data-theme", "light");
    readColours();
    for (const figure of document.querySelectorAll("figure.plot")) if (figure.offsetParent) { figure.follow.visible(); figure.plot.redraw(false); }
  });
  addEventListener("afterprint", () => { setTheme(before || "auto"); });
  document.documentElement.dataset.ready = "yes";
}

// For tests, and for whoever is curious in the browser's console.
window.report = {data: D, zoom, opened, plots: shown};
main().catch((error) => {
  document.getElementById("report").append(el("p", {class: "trouble"}, `The rest of this report can't be shown: ${error.message}`));
  throw error;
});
