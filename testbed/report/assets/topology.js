// The topology as a picture. Nodes are placed so that their distances are those of the network (stress majorization:
// Gansner, Koren and North, 2004); from a circle on, so that the same network looks the same each time.

function topology() {
  const nodes = D.nodes.map((name) => ({name, router: name in D.routers, lan: false}));
  const byName = new Map(nodes.map((node) => [node.name, node])), edges = [];
  const grouped = new Map();
  for (const link of D.links) grouped.set(link.link, [...(grouped.get(link.link) || []), link]);
  for (const [name, ways] of grouped) {
    const ends = ways[0].ends.filter((end) => byName.has(end));
    if (ends.length > 2) {
      const lan = {name, router: false, lan: true, ways};
      nodes.push(lan);
      for (const end of ends) edges.push({a: byName.get(end), b: lan, ways: ways.filter((way) => way.direction.startsWith(`${end}->`))});
    } else if (ends.length === 2) edges.push({a: byName.get(ends[0]), b: byName.get(ends[1]), ways});
  }
  if (!nodes.length) return el("p", {}, "There is no node.");
  nodes.forEach((node, index) => { node.index = index; });
  layout(nodes, edges);
  return drawTopology(nodes, edges);
}

function distances(nodes, edges) {
  const n = nodes.length, near = nodes.map(() => []);
  for (const {a, b} of edges) { near[a.index].push(b.index); near[b.index].push(a.index); }
  return nodes.map((_, from) => {
    const d = new Array(n).fill(Infinity), queue = [from];
    d[from] = 0;
    for (const at of queue) for (const to of near[at]) if (d[to] === Infinity) { d[to] = d[at] + 1; queue.push(to); }
    return d.map((value) => value === Infinity ? 3 : value);
  });
}

function layout(nodes, edges) {
  const n = nodes.length, d = distances(nodes, edges);
  const p = nodes.map((_, i) => [Math.cos(i * 2.399963) * Math.sqrt(i + 1), Math.sin(i * 2.399963) * Math.sqrt(i + 1)]);
  const rounds = Math.max(10, Math.min(300, Math.floor(3e6 / (n * n))));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < n; i++) {
      let sx = 0, sy = 0, sw = 0;
      for (let j = 0; j < n; j++) {
        if (i === j) continue;
        const w = d[i][j] ** -2, dx = p[i][0] - p[j][0], dy = p[i][1] - p[j][1], far = Math.hypot(dx, dy) || 1e-9;
        sx += w * (p[j][0] + d[i][j] * dx / far);
        sy += w * (p[j][1] + d[i][j] * dy / far);
        sw += w;
      }
      if (sw) p[i] = [sx / sw, sy / sw];
    }
  }
  const mean = [0, 1].map((k) => p.reduce((sum, at) => sum + at[k], 0) / n);
  let xx = 0, yy = 0, xy = 0;
  for (const [x, y] of p) { xx += (x - mean[0]) ** 2; yy += (y - mean[1]) ** 2; xy += (x - mean[0]) * (y - mean[1]); }
  const turn = 0.5 * Math.atan2(2 * xy, xx - yy), cos = Math.cos(turn), sin = Math.sin(turn);
  nodes.forEach((node, i) => {
    const x = p[i][0] - mean[0], y = p[i][1] - mean[1];
    node.x = x * cos + y * sin;
    node.y = y * cos - x * sin;
  });
  const reach = (key) => Math.max(...nodes.map((node) => Math.abs(node[key])));
  if (reach("y") < 0.15 * reach("x")) for (const node of nodes) node.y = 0;  // a chain is a straight line
  const first = nodes.find((node) => Math.abs(node.x) > 0.1);
  if (first && first.x > 0) for (const node of nodes) node.x = -node.x;  // the first is at the left
  const upper = nodes.find((node) => Math.abs(node.y) > 0.1);
  if (upper && upper.y > 0) for (const node of nodes) node.y = -node.y;
  orderLeaves(nodes, edges);
}

/** Of nodes that hang at the same one, which are alike to the layout: the first stands above. */
function orderLeaves(nodes, edges) {
  const near = nodes.map(() => []);
  for (const {a, b} of edges) { near[a.index].push(b); near[b.index].push(a); }
  const groups = new Map();
  for (const node of nodes) {
    if (near[node.index].length === 1) groups.set(near[node.index][0], [...(groups.get(near[node.index][0]) || []), node]);
  }
  for (const leaves of groups.values()) {
    const places = leaves.map(({x, y}) => ({x, y})).sort((one, other) => Math.abs(one.y - other.y) > 0.05 ? one.y - other.y : one.x - other.x);
    leaves.forEach((leaf, at) => Object.assign(leaf, places[at]));
  }
}

function drawTopology(nodes, edges) {
  const span = (key) => Math.max(...nodes.map((node) => node[key])) - Math.min(...nodes.map((node) => node[key]));
  const wide = Math.max(span("x"), 1e-6), high = span("y"), texts = edges.map(edgeLines);
  const perUnit = edges.map(({a, b}, at) => Math.abs(a.y - b.y) < 0.3  // what is said of an edge has room between its nodes
    ? (110 + 6.5 * Math.max(0, ...texts[at].map(({text}) => text.length))) / Math.max(0.3, Math.abs(a.x - b.x)) : 0);
  const W = Math.min(1100, Math.max(560, Math.max(250, ...perUnit) * wide + 180));
  const sx = (W - 180) / wide, sy = Math.min(sx, high > 0.05 ? Math.max(110, Math.min(sx * 0.75, 520 / high)) : sx), H = high * sy + 130;
  const x0 = Math.min(...nodes.map((node) => node.x)), y0 = Math.min(...nodes.map((node) => node.y));
  for (const node of nodes) { node.px = 90 + (node.x - x0) * sx; node.py = 65 + (node.y - y0) * sy; }
  const picture = svg("svg", {viewBox: `0 0 ${W} ${H}`, class: "topology", role: "img", style: `max-width:${W}px`,
    "aria-label": `The topology: ${D.nodes.join(", ")}, joined by ${D.links.map((link) => link.direction).join(", ")}`});
  for (const {a, b} of edges) picture.append(svg("line", {x1: a.px, y1: a.py, x2: b.px, y2: b.py, class: "edge"}));
  for (const node of nodes) picture.append(nodeOf(node));
  edges.forEach((edge, at) => picture.append(edgeText(edge, texts[at])));  // what a box would hide is above it
  return el("div", {class: "scroll"}, picture);
}

/** What an edge does, a line each. */
function edgeLines({b, ways}) {
  const says = ways.map((way) => ({way, text: asked(way.asked).join(", ")})), lines = [];
  const same = says.length > 0 && says.every(({text}) => text === says[0].text);
  if (same && (says.length > 1 || b.lan)) lines.push({text: says[0].text});
  else for (const {way, text} of says) if (text) lines.push({text: `${pair(way.direction)}: ${text}`});
  for (const {way} of says) if (way.dropped) lines.push({text: `${count(way.dropped)} dropped ${pair(way.direction)}`, bad: true});
  return lines.filter(({text}) => text);
}

function edgeText({a, b}, shown) {
  const flat = Math.abs(a.py - b.py) < 40;
  const x = (a.px + b.px) / 2, y = (a.py + b.py) / 2 - (flat ? 8 + 15 * (shown.length - 1) : 15 * (shown.length - 1) / 2 - 4);
  const group = svg("g", {});
  shown.forEach(({text, bad}, at) => group.append(svg("text", {x, y: y + 15 * at, class: bad ? "label bad" : "label", "text-anchor": "middle"}, text)));
  return group;
}

function nodeOf({name, router, lan, px, py}) {
  const apps = D.apps.filter((app) => app.host === name).map((app) => app.name);
  const shape = lan ? svg("rect", {x: px - 46, y: py - 13, width: 92, height: 26, rx: 13, class: "lan"})
    : router ? svg("circle", {cx: px, cy: py, r: 24, class: "router"})
      : svg("rect", {x: px - 46, y: py - 18, width: 92, height: 36, rx: 5, class: "host"});
  const short = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;
  return svg("g", {}, svg("title", {}, name), shape,
    svg("text", {x: px, y: py + 5, class: "name", "text-anchor": "middle"}, short(name, router ? 6 : 12)),
    apps.length ? svg("text", {x: px, y: py + 34, class: "apps", "text-anchor": "middle"}, short(apps.join(", "), 24)) : NONE);
}

/** What a direction of a link is asked to do, each in a few words. */
function asked(shape) {
  const words = [];
  if (shape.down) words.push("down");
  if (shape.delay) words.push(duration(shape.delay) + (shape.jitter ? ` ± ${duration(shape.jitter)}` : ""));
  if (shape.rate) words.push(rate(shape.rate));
  if (shape.queue_packets !== NONE && shape.queue_packets !== undefined) words.push(`queue ${shape.queue_packets} packets`);
  if (shape.queue_bytes !== NONE && shape.queue_bytes !== undefined) words.push(`queue ${size(shape.queue_bytes)}`);
  for (const name of ["loss", "duplicate", "reorder", "corrupt"]) if (shape[name]) words.push(`${name} ${share(shape[name])}`);
  for (const rule of shape.drops || []) words.push(`drop ${rule.kind} ${rule.first === rule.last ? rule.first : `${rule.first}–${rule.last}`}`);
  for (const name of ["loss", "duplicate", "reorder", "corrupt"]) {
    if (shape.underlay && shape.underlay[name]) words.push(`underlay ${name} ${share(shape.underlay[name])}`);
  }
  return words;
}
