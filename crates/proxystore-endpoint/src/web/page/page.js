// Asks for the status each second and shows it. What did not change is not touched.

const EACH = 1000; // milliseconds between two questions
const PATIENCE = 5000; // milliseconds for an answer
const LONGEST_PAUSE = 10_000; // milliseconds between questions to an endpoint that is gone
const SAMPLES = 120; // of a line

const node = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function hide(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

// --- Numbers as people read them ---

function significant(value) {
  return value >= 100 ? number.format(Math.round(value)) : Number(value.toPrecision(3)).toString();
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${significant(count)} ${units[unit]}`;
}

const perSecond = (rate) => `${bytes(rate)}/s`;

function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : "less than a minute";
}

function roundTrip(microseconds) {
  return microseconds < 1000 ? `${microseconds} µs` : `${significant(microseconds / 1000)} ms`;
}

// --- Rates: what grew between two answers ---

class Rate {
  #last;
  history = new Array(SAMPLES).fill(0);

  take(total, time) {
    const last = this.#last;
    this.#last = { total, time };
    const rate = last && total >= last.total && time > last.time ? ((total - last.total) * 1000) / (time - last.time) : 0;
    this.history.push(rate);
    this.history.shift();
    return rate;
  }
}

const rates = new Map();

function rate(name, total, time) {
  if (!rates.has(name)) rates.set(name, new Rate());
  return rates.get(name).take(total, time);
}

function draw(svg, history) {
  const most = Math.max(...history);
  const points = history.map((value, at) => `${at},${most ? (30 - (29 * value) / most).toFixed(2) : 30}`).join(" ");
  if (!svg.firstChild) {
    mark(svg, "viewBox", `0 0 ${SAMPLES - 1} 31`);
    mark(svg, "preserveAspectRatio", "none");
    for (const kind of ["area", "line"]) {
      const shape = document.createElementNS(svg.namespaceURI, kind === "area" ? "polygon" : "polyline");
      shape.setAttribute("class", kind);
      svg.append(shape);
    }
  }
  mark(svg.firstChild, "points", `0,31 ${points} ${SAMPLES - 1},31`);
  mark(svg.lastChild, "points", points);
}

// --- The parts of the page ---

function fill(name, used, limit, none) {
  const bar = node(name);
  const share = limit ? Math.min(1, used / limit) : 0;
  const text = limit || used ? `${bytes(used)} of ${bytes(limit)}` : none;
  show(node(`${name}-text`), text);
  mark(bar, "aria-valuemax", String(limit));
  mark(bar, "aria-valuenow", String(Math.min(used, limit)));
  mark(bar, "aria-valuetext", text);
  mark(bar, "data-state", share > 0.9 ? "warn" : "calm");
  // A little of something is seen too.
  const width = share ? `max(${(share * 100).toFixed(2)}%, 2px)` : "0px";
  if (bar.firstElementChild.dataset.width !== width) {
    bar.firstElementChild.dataset.width = width;
    bar.firstElementChild.style.width = width;
  }
}

function showTraffic(status, time) {
  const incoming = rate("in", status.bytes_in, time);
  const outgoing = rate("out", status.bytes_out, time);
  const fromPeers = rate("peer in", status.peer_bytes_in, time);
  const toPeers = rate("peer out", status.peer_bytes_out, time);
  rate("peer both", status.peer_bytes_in + status.peer_bytes_out, time);
  show(node("in-text"), perSecond(incoming));
  show(node("out-text"), perSecond(outgoing));
  show(node("peer-text"), `${perSecond(fromPeers)} in, ${perSecond(toPeers)} out`);
  draw(node("in-line"), rates.get("in").history);
  draw(node("out-line"), rates.get("out").history);
  draw(node("peer-line"), rates.get("peer both").history);
}

function showRelay(relay) {
  const line = node("relay");
  const words = relay
    ? [relay.connected ? "connected" : "not connected", relay.connected ? "good" : "bad", `${relay.url}${relay.problem ? `: ${relay.problem}` : ""}`]
    : ["no relay", "calm", "peers are reached by address alone"];
  if (!line.firstChild) {
    const pill = document.createElement("span");
    pill.className = "pill";
    line.append("Relay ", pill, document.createElement("span"));
  }
  const [pill, text] = line.children;
  show(pill, words[0]);
  mark(pill, "data-state", words[1]);
  show(text, words[2]);
}

const COLUMNS = ["State", "Path", "Via", "Round trip", "In", "Out"];

function newRow(id) {
  const row = document.createElement("tr");
  row.dataset.id = id;
  const head = document.createElement("th");
  head.scope = "row";
  head.className = "peer";
  head.append(document.createElement("span"), document.createElement("code"));
  row.append(head);
  COLUMNS.forEach((label, at) => {
    const cell = document.createElement("td");
    cell.dataset.label = label;
    if (at >= 3) cell.className = "number";
    if (label === "Via") cell.className = "via";
    const value = document.createElement("span");
    if (label === "State" || label === "Path") value.className = "pill";
    cell.append(value);
    row.append(cell);
  });
  return row;
}

function showPeers(peers, time) {
  const body = node("peer-table").tBodies[0];
  hide(node("peer-table"), peers.length === 0);
  hide(node("no-peers"), peers.length > 0);
  const rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  peers.forEach((peer, at) => {
    const row = rows.get(peer.id) ?? newRow(peer.id);
    rows.delete(peer.id);
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
    const [name, id] = row.cells[0].children;
    show(name, peer.name || "unnamed");
    show(id, `${peer.id.slice(0, 10)}…`);
    mark(id, "title", peer.id);
    const calm = peer.state === "connected" || peer.state === "idle";
    const values = [
      [peer.state, peer.state === "connected" ? "good" : calm ? "calm" : "bad"],
      [peer.path || "none", { direct: "good", relayed: "warn" }[peer.path] ?? "calm"],
      [peer.via || "–"],
      [peer.path ? roundTrip(peer.round_trip_us) : "–"],
      [perSecond(rate(`in ${peer.id}`, peer.bytes_in, time))],
      [perSecond(rate(`out ${peer.id}`, peer.bytes_out, time))],
    ];
    values.forEach(([text, state], column) => {
      const value = row.cells[column + 1].firstElementChild;
      show(value, text);
      if (state) mark(value, "data-state", state);
    });
  });
  for (const [id, row] of rows) {
    row.remove();
    rates.delete(`in ${id}`);
    rates.delete(`out ${id}`);
  }
}

function showStatus(status, time) {
  show(node("name"), status.name);
  if (document.title !== status.name) document.title = status.name;
  show(node("id"), status.id);
  hide(node("copy"), false);
  show(node("about"), `Version ${status.version}, process ${status.pid}, up ${duration(status.uptime)}`);

  const storage = status.storage;
  show(node("objects"), number.format(storage.objects));
  show(node("waiting"), number.format(storage.waiting));
  fill("memory", storage.memory, storage.memory_limit, "none");
  fill("disk", storage.disk, storage.disk_limit, "not used");

  show(node("request-rate"), significant(rate("requests", status.requests, time)));
  draw(node("request-line"), rates.get("requests").history);
  show(node("answered"), number.format(status.requests));
  show(node("failures"), number.format(status.failures));
  show(node("clients"), number.format(status.clients));
  show(node("refused-clients"), number.format(status.refused_clients));
  show(node("refused-peers"), number.format(status.refused_peers));

  showTraffic(status, time);
  showRelay(status.relay);
  showPeers(status.peers, time);
}

function showState(state, text) {
  show(node("state"), text);
  mark(node("state"), "data-state", state);
  hide(node("gone"), state !== "bad");
  document.body.classList.toggle("stale", state === "bad");
}

// --- Asking ---

async function ask() {
  const response = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!response.ok) throw new Error(`the endpoint answered ${response.status}`);
  return response.json();
}

async function follow() {
  let pause = EACH;
  for (;;) {
    try {
      const status = await ask();
      showStatus(status, performance.now());
      showState("good", "running");
      pause = EACH;
    } catch {
      showState("bad", "gone");
      pause = Math.min(pause * 1.5, LONGEST_PAUSE);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function copied(text) {
  show(node("copy"), text);
  setTimeout(() => show(node("copy"), "Copy id"), 1500);
}

node("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(node("id").textContent);
    copied("Copied");
  } catch {
    // Not allowed where the page does not come from this host: select it instead.
    getSelection().selectAllChildren(node("id"));
    copied("Selected");
  }
});

follow();
