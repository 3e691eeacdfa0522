// Asks for the status each second and shows it.

const at = (id) => document.getElementById(id);
const element = (name, text, title) => {
  const made = document.createElement(name);
  made.textContent = text;
  if (title) made.title = title;
  return made;
};
const bytes = (n) => {
  let unit = 0;
  for (; n >= 1000 && unit < 5; unit++) n /= 1000;
  return `${unit ? n.toPrecision(3) : n} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
};
const span = (s) => s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min`
  : s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min` : `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
const list = (id, entries) => at(id).replaceChildren(...entries.map(([name, value]) => {
  const pair = document.createElement("div");
  pair.append(element("dt", name), element("dd", value));
  return pair;
}));
const rows = (id, entries) => at(id).replaceChildren(...entries.map((cells) => {
  const row = document.createElement("tr");
  row.append(...cells.map(([text, title]) => element("td", text, title)));
  return row;
}));
const short = (id) => id ? [`${id.slice(0, 10)}…`, id] : ["not said"];
const show = (s) => {
  at("open").hidden = !s.open;
  list("figures", [["Endpoints", `${s.clients.length} of ${s.connection_limit}`], ["Received", bytes(s.bytes_received)],
    ["Relayed", bytes(s.bytes_sent)], ["Refused", s.refused], ["Addresses told", s.address_lookups], ["Up", span(s.uptime)]]);
  list("facts", [["URL", s.url], ["TCP", s.tcp], ["UDP", s.udp ?? "none: all traffic passes through here"], ["Fingerprint", s.fingerprint],
    ["Certificate", `${s.self_signed ? "of its own" : "of an authority"}, for ${s.names.join(", ")}, until ${new Date(s.expires * 1000).toISOString().slice(0, 10)}`],
    ["Version", s.version]]);
  rows("clients", s.clients.map((c) => [short(c.id), [c.address], [span(c.connected)]]));
  rows("refusals", s.refusals.map((r) => [short(r.id), [r.address], [r.reason], [span(r.ago)]]));
};
const tick = async () => {
  let fresh = false;
  try {
    const answer = await fetch("/status.json", { signal: AbortSignal.timeout(5000) });
    if (answer.ok) { show(await answer.json()); fresh = true; }
  } catch { /* said below */ }
  at("gone").hidden = fresh;
  document.body.classList.toggle("stale", !fresh);
  setTimeout(tick, 1000);
};
tick();
