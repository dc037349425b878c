// The module of the page. Everything works without it, except what is live: it shows times in the
// viewer's zone, copies, moves by keys, keeps a form from acting twice, and follows what happens.

const root = document.documentElement;
const main = () => document.getElementById("main");

// Times come in UTC; their text is for people already ("3 min ago") or a date that is put into the zone here.
function zones(within) {
  for (const t of within.querySelectorAll("time[datetime]")) {
    const at = new Date(t.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const local = at.toLocaleString(root.lang, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
    if (t.dataset.clock !== undefined) t.textContent = local;
    if (t.dataset.daytime !== undefined) t.textContent = at.toLocaleTimeString(root.lang, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
    t.title = t.dataset.clock !== undefined ? t.dateTime : `${local} · ${t.dateTime}`;
  }
}

function copies(within) {
  for (const b of within.querySelectorAll("button[data-copy]")) {
    b.hidden = !navigator.clipboard;
    b.onclick = async () => {
      const from = document.getElementById(b.dataset.copy);
      await navigator.clipboard.writeText(from ? from.dataset.value ?? from.textContent : b.dataset.copy);
      const text = b.textContent;
      b.textContent = b.dataset.done;
      setTimeout(() => { b.textContent = text; }, 1500);
    };
  }
}

// A form acts once: its buttons rest until the answer is there.
document.addEventListener("submit", (e) => {
  const form = e.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) { e.preventDefault(); return; }
  form.dataset.sent = "1";
  setTimeout(() => { for (const b of form.querySelectorAll("button")) b.disabled = true; });
});
addEventListener("pageshow", (e) => {
  if (!e.persisted) return;
  for (const form of document.forms) { delete form.dataset.sent; for (const b of form.querySelectorAll("button")) b.disabled = false; }
});

// Selects and boxes of a filter apply at once.
document.addEventListener("change", (e) => {
  if (e.target.matches("form[data-auto] select, form[data-auto] input[type=checkbox]")) e.target.form.requestSubmit();
});

// Rows are moved through by j and k, and opened by Enter.
let goes = false; // g was pressed
function row(step) {
  const rows = [...document.querySelectorAll("[data-rows] tr[data-id]")];
  const at = rows.findIndex((r) => r.classList.contains("at"));
  const next = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + step))];
  if (!next) return;
  rows[at]?.classList.remove("at");
  next.classList.add("at");
  (next.querySelector("a[href]") ?? next).focus();
  next.scrollIntoView({ block: "nearest" });
}

const keys = {
  "/": () => { const q = document.getElementById("q"); q?.focus(); q?.select(); },
  "?": help,
  j: () => row(1),
  k: () => row(-1),
  p: () => live?.toggle(),
  g: () => { goes = true; setTimeout(() => { goes = false; }, 1200); },
};
const places = { o: "/", d: "/deliveries", e: "/endpoints", t: "/types", j: "/jobs", a: "/audit" };

function help() {
  const d = document.getElementById("keys");
  if (d.open) d.close(); else d.showModal();
}

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, textarea, select")) {
    if (e.key === "Escape") e.target.blur?.();
    return;
  }
  if (goes && document.querySelector(`.side nav a[href="${places[e.key]}"]`)) { location.assign(places[e.key]); return; }
  goes = false;
  const act = keys[e.key];
  if (!act || (document.querySelector("dialog[open]") && e.key !== "?")) return;
  e.preventDefault();
  act();
});
for (const b of document.querySelectorAll("[data-help]")) { b.hidden = false; b.onclick = help; }

function dress(within) { zones(within); copies(within); }
dress(document);

// On a narrow screen the menu is a row that scrolls: where the viewer is must be in sight.
const here = document.querySelector(".side nav [aria-current]");
if (here) {
  const nav = here.closest("nav"), a = here.getBoundingClientRect(), n = nav.getBoundingClientRect();
  nav.scrollLeft += a.left - n.left - (n.width - a.width) / 2;
}

// What needs a person stands above the rest: where it, or what it would move, is under the pointer or has the focus, it waits. What is
// new in it is shown at an edge meanwhile, away from the pointer.
const alarm = document.querySelector("[data-alarm]");
let pointerAt = 0, waits = false;
if (alarm) {
  addEventListener("pointermove", (e) => { pointerAt = e.clientY; });
  main().addEventListener("pointerleave", () => { if (waits) part().catch(() => {}); });
  alarm.querySelector("[data-alarm-show]").onclick = () => { scrollTo({ top: 0 }); part(true).catch(() => {}); };
}
const needs = (within) => [...within.querySelectorAll("[data-need]")];
function moves(old, now) {
  const in_ = [[...document.querySelectorAll(":hover")].at(-1), document.activeElement];
  const below = (e) => e && main().contains(e) && e !== main() && (old.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING) && !old.contains(e) && !alarm.contains(e);
  return needs(old).length !== needs(now).length && in_.some(below);
}
function wait(old, now) {
  const had = needs(old).map((n) => n.dataset.need);
  const fresh = needs(now).filter((n) => !had.includes(n.dataset.need));
  waits = true;
  alarm.hidden = fresh.length === 0;
  alarm.classList.toggle("up", pointerAt > innerHeight / 2);
  if (fresh.length) alarm.querySelector("[data-alarm-text]").textContent = fresh[0].querySelector("[data-say]").textContent + (fresh.length > 1 ? ` +${fresh.length - 1}` : "");
}

// part reads the screen again and replaces the parts that are marked data-part, unless the pointer or the focus
// is in them. With all, what needs a person is replaced also where that moves something.
async function part(all) {
  const answer = await fetch(location.href, { headers: { "Relay-Part": "1" } });
  if (answer.status === 401) { location.reload(); return; }
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-part]")) {
    const now = fresh.querySelector(`[data-part="${CSS.escape(old.dataset.part)}"]`);
    if (!now) continue;
    const held = old.matches(":hover") || old.contains(document.activeElement);
    if (alarm && old.dataset.part === "needs") {
      if (!all && (held || moves(old, now))) { wait(old, now); continue; }
      waits = false;
      alarm.hidden = true;
    } else if (held) continue;
    const open = [...old.querySelectorAll("details[open][id]")].map((d) => d.id);
    const next = document.importNode(now, true);
    for (const id of open) next.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
    old.replaceWith(next);
    dress(next);
  }
}

// Live follows /live with the filter of the screen. Rows that come are put on top of a list, or counted while it is
// paused or the pointer is on it; other screens read their parts again, at most every few seconds.
class Live {
  constructor(box) {
    this.box = box;
    this.button = box.querySelector("[data-pause]");
    this.fresh = box.querySelector("[data-new]");
    this.list = document.querySelector("[data-rows=live] tbody");
    this.every = Number(box.dataset.every || 3) * 1000;
    this.waiting = [];
    this.missed = 0;
    this.paused = false;
    box.hidden = false;
    this.button.onclick = () => this.toggle();
    this.fresh.onclick = () => { this.take(); if (this.missed) location.reload(); };
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.close(); else if (!this.paused) this.open(); });
    this.list?.closest("table").addEventListener("pointerleave", () => { if (!this.paused) this.take(); });
    this.open();
  }

  open() {
    if (this.source || document.hidden) return;
    this.source = new EventSource(`/live?${this.box.dataset.live}`);
    this.source.onopen = () => { this.state(this.paused ? "paused" : "live"); this.refresh(); }; // what came before it was open
    this.source.onerror = () => { this.state("away"); if (this.source?.readyState === EventSource.CLOSED) this.refused(); };
    this.source.addEventListener("row", (e) => this.row(e));
    this.source.addEventListener("lost", (e) => { this.missed += Number(e.data); this.count(); this.refresh(); });
    this.source.addEventListener("state", () => this.refresh());
    this.source.addEventListener("needs", () => this.refresh(true));
    this.source.addEventListener("end", () => this.close());
  }

  // A browser does not ask again what was refused: perhaps the access has ended, which the screen then says.
  async refused() {
    this.close();
    const answer = await fetch(location.href, { headers: { "Relay-Part": "1" } }).catch(() => undefined);
    if (answer?.status === 401) location.reload();
    else setTimeout(() => { if (!this.paused) this.open(); }, this.every);
  }

  close() {
    this.source?.close();
    this.source = undefined;
  }

  state(s) {
    this.box.dataset.state = s;
    this.box.querySelector("[data-word]").textContent = this.box.getAttribute(`data-text-${s}`);
  }

  toggle() {
    this.paused = !this.paused;
    this.button.setAttribute("aria-pressed", String(this.paused));
    this.state(this.paused ? "paused" : "live");
    if (!this.paused) { this.take(); this.refresh(); }
  }

  row(e) {
    if (!this.list) { this.refresh(); return; }
    const body = document.createElement("tbody");
    body.innerHTML = e.data; // made by the server, escaped
    const tr = body.firstElementChild;
    if (!tr) return;
    const there = this.list.querySelector(`tr[data-id="${CSS.escape(tr.dataset.id)}"]`);
    if (there && !this.paused && !there.matches(":hover, :focus-within")) {
      there.replaceWith(tr);
      tr.classList.add("new");
      dress(tr);
      return;
    }
    this.waiting = this.waiting.filter((r) => r.dataset.id !== tr.dataset.id);
    this.waiting.push(tr);
    if (this.waiting.length > 100) { this.waiting.shift(); this.missed++; }
    if (this.paused || this.list.closest("table").matches(":hover, :focus-within") || this.box.dataset.top === "no") this.count();
    else this.take();
  }

  // take puts what waits on top, newest first, and keeps the list as long as it was.
  take() {
    if (!this.list || this.box.dataset.top === "no") return;
    const room = Math.max(20, this.list.rows.length);
    for (const tr of this.waiting) {
      this.list.querySelector(`tr[data-id="${CSS.escape(tr.dataset.id)}"]`)?.remove();
      tr.classList.add("new");
      this.list.prepend(tr);
      dress(tr);
    }
    this.waiting = [];
    while (this.list.rows.length > room) this.list.lastElementChild.remove();
    document.querySelector("[data-empty]")?.setAttribute("hidden", "");
    this.list.closest("table").hidden = false;
    this.count();
  }

  count() {
    const n = this.waiting.length + this.missed;
    this.fresh.hidden = n === 0;
    this.fresh.textContent = this.box.dataset.count.replace("{n}", n);
  }

  // soon: something needs a person.
  refresh(soon) {
    if (this.paused || (this.due && !soon) || !document.querySelector("[data-part]")) return;
    clearTimeout(this.due);
    this.due = setTimeout(() => { this.due = undefined; if (!this.paused && !document.hidden) part().catch(() => this.state("away")); }, soon ? 100 : this.every * (0.75 + Math.random() / 2));
  }
}

const box = document.querySelector("[data-live]");
const live = box && "EventSource" in window ? new Live(box) : undefined;

// What runs without attempts, like a job, is looked at again by the clock.
function again() {
  const p = document.querySelector("[data-again]");
  if (p) setTimeout(() => { (document.hidden || live?.paused ? Promise.resolve() : part().catch(() => {})).then(again); }, Number(p.dataset.again) * 1000);
}
again();
