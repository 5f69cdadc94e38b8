
// Transcripts: their rows lie beside the table as data, and become rows when a reader opens them.
const element = (name, text, className = "") =>
  Object.assign(document.createElement(name), { textContent: text, className });

const fill = (details, table) => {
  const names = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  const [verdicts, texts] = [details.dataset.verdicts, details.dataset.texts].map((names) => names.split(" "));
  const cell = (text, column) => {
    const name = names[column];
    const made = element("td", name === "verdict" ? "" : text, texts.includes(name) ? "text" : "");
    if (name === "verdict") made.append(element("span", text, `tag ${verdicts.includes(text) ? text : "other"}`));
    made.dataset.label = name;
    return made;
  };
  for (const cells of JSON.parse(details.querySelector("script").textContent)) {
    const row = document.createElement("tr");
    row.append(...cells.map(cell));
    table.tBodies[0].append(row);
  }
};

const filter = (form, table) => {
  const rows = [...table.tBodies[0].rows];
  const count = form.querySelector("output");
  const choices = [...form.querySelectorAll("select")];
  const search = form.querySelector("input");
  const show = () => {
    const wanted = search.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const value = (choice) => row.cells[choice.dataset.column].textContent;
      const fits = choices.every((choice) => !choice.value || value(choice) === choice.value);
      row.hidden = !(fits && (!wanted || row.textContent.toLowerCase().includes(wanted)));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} shown`;
  };
  form.addEventListener("input", show);
  form.addEventListener("reset", () => setTimeout(show));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
};

for (const details of document.querySelectorAll("details.transcripts")) {
  const open = () => {
    const table = details.querySelector("table.replies");
    fill(details, table);
    filter(details.querySelector("form"), table);
  };
  if (details.open) open(); // before the script had come
  else details.addEventListener("toggle", open, { once: true });
}

// Values of maps and curves: under the pointer or a finger, and by arrow keys where a picture has the focus.
const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

const described = (part) => {
  const title = part.querySelector?.(":scope > title");
  if (title && part.localName !== "svg") {
    part.dataset.described = title.textContent;
    title.remove(); // else the browser shows it a second time
  }
  return part.dataset?.described;
};

let traced = null; // the circuit in which the edges of one node stand out

const trace = (node) => {
  for (const edge of traced?.querySelectorAll(".own") ?? []) edge.classList.remove("own");
  traced?.classList.remove("traced");
  traced = node && node.closest("svg");
  traced?.classList.add("traced");
  for (const edge of traced?.querySelectorAll(".edge") ?? [])
    edge.classList.toggle("own", edge.dataset.ends.split(" ").includes(node.dataset.node));
};

let shown = null; // what the tip is about

const point = (part) => {
  shown?.classList.remove("pointed");
  shown = part && described(part) ? part : null;
  trace(shown?.dataset.node ? shown : null);
  tip.hidden = !shown;
  if (!shown) return;
  tip.textContent = part.dataset.described;
  part.classList.add("pointed");
  const at = part.getBoundingClientRect();
  const left = Math.min(at.right + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left) + scrollX}px`;
  tip.style.top = `${at.bottom + 6 + scrollY}px`;
};

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const middle = (part) => {
  const { x, y, width, height } = part.getBBox();
  return [x + width / 2, y + height / 2];
};

// The nearest in the direction of the arrow: steps aside count ten times.
const next = (parts, from, [right, down]) => {
  const [x, y] = middle(from);
  let best = from;
  let least = Infinity;
  for (const part of parts) {
    const [dx, dy] = middle(part).map((at, i) => at - [x, y][i]);
    const along = dx * right + dy * down;
    const aside = Math.abs(dx * down) + Math.abs(dy * right);
    if (along > 0.5 && along + 10 * aside < least) [best, least] = [part, along + 10 * aside];
  }
  return best;
};

const pictureAt = (part) => part.closest?.("figure svg");
const places = new WeakMap(); // where the keys are in each picture

// One listener for all pictures: a page of fifty runs has hundreds.
document.addEventListener("pointerover", (event) => point(pictureAt(event.target) ? event.target : null));
document.documentElement.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null));
document.addEventListener("focusout", (event) => shown && event.target.contains(shown) && point(null));
document.addEventListener("keydown", (event) => {
  const picture = pictureAt(event.target);
  if (picture && event.key === "Escape") point(null);
  if (!picture || !(event.key in STEPS)) return;
  event.preventDefault();
  const parts = [...picture.querySelectorAll(":is(rect, circle, path, polygon, g)")].filter(described);
  if (!parts.length) return;
  const here = places.has(picture) ? next(parts, places.get(picture), STEPS[event.key]) : parts[0];
  places.set(picture, here);
  point(here);
});

// Paper has nothing to click on: what is folded is printed open, but for transcripts, which have rows without end.
const folded = "details:not(.transcripts, [open])";
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll(folded)];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});

// A link to a part of the page that lies in something folded opens it.
const unfold = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  for (let at = target; at; at = at.parentElement) if (at.localName === "details") at.open = true;
};
addEventListener("hashchange", unfold);
unfold();
