"use strict";
// Draws the points itself, pixel by pixel: 200,000 points need no graphics card. Texts reach the page by textContent only.
const $ = (id) => document.getElementById(id);
const head = JSON.parse($("head").textContent);
const canvas = $("canvas"), context = canvas.getContext("2d");
const SHOWN = 50, MISSING = 255, GROUPS = 100;
const view = {x: 0, y: 0, scale: 1, whole: 1};
const state = {query: "", cluster: -1, duplicates: false, chosen: -1, over: -1};
let size = [0, 0], ratio = 1, image = null, waiting = false;
let data, colours, matches = null, searchable = null;

const number = (value) => value.toLocaleString("en");
const element = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};

async function bytes(name) {
  const raw = Uint8Array.from(atob($("block-" + name).textContent), (sign) => sign.charCodeAt(0));
  $("block-" + name).remove();
  return new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
const json = async (name) => JSON.parse(new TextDecoder().decode(await bytes(name)));

// The hue turns by the golden angle, so that clusters of similar size have different colours; lightness has three steps.
function clusterColour(place, dark) {
  const light = (dark ? [66, 76, 56] : [42, 52, 34])[place % 3];
  return rgb(`hsl(${(place * 137.508 + 210) % 360} ${dark ? 65 : 70}% ${light}%)`);
}
const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgb(css) {
  probe.fillStyle = css;
  probe.fillRect(0, 0, 1, 1);
  return probe.getImageData(0, 0, 1, 1).data.slice(0, 3);
}
const shade = (share, dark) => rgb(dark ? `hsl(${250 - 190 * share} 70% ${42 + 36 * share}%)`
  : `hsl(${260 - 215 * share} 75% ${28 + 22 * share}%)`);

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const style = getComputedStyle(document.documentElement);
  const css = (name) => rgb(style.getPropertyValue(name).trim());
  const faint = css("--faint"), soft = css("--soft");
  let table = head.clusters.map((_, place) => clusterColour(place, dark)), of = data.clusters;
  if (head.color && head.color.values) {
    table = head.color.values.map((_, place) => clusterColour(place, dark));
    table.push(soft);
    of = data.shades;
  } else if (head.color) {
    table = Array.from({length: 101}, (_, share) => shade(share / 100, dark));
    of = data.shades;
  } else if (!head.clustered) {
    table = [css("--mark")];
    of = new Uint8Array(head.texts);
  }
  colours = {paper: css("--paper"), faint, ring: style.getPropertyValue("--ring").trim(), mark: style.getPropertyValue("--mark").trim(),
    table, of, soft};
  legends(dark);
  redraw();
}
const colourOf = (row) => colours.table[colours.of[row]] || colours.soft;

function screen(row) {
  return [(data.positions[2 * row] - view.x) * view.scale + size[0] / 2,
    (view.y - data.positions[2 * row + 1]) * view.scale + size[1] / 2];
}

function redraw() {
  if (!waiting && data) {
    waiting = true;
    requestAnimationFrame(draw);
  }
}

// A disc as offsets in the image and the share of each pixel that it covers.
function disc(radius, width) {
  const found = [], reach = Math.ceil(radius);
  for (let y = -reach; y <= reach; y++)
    for (let x = -reach; x <= reach; x++) {
      const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(x, y)));
      if (cover > 0) found.push([4 * (y * width + x), cover]);
    }
  return [found, reach];
}

function radius() {
  const n = head.texts, base = n > 50000 ? 1.1 : n > 10000 ? 1.6 : n > 1000 ? 2.4 : 4;
  return ratio * Math.min(7, base * Math.pow(Math.max(1, view.scale / view.whole), 0.45));
}

function paint(pixels, width, height, wanted, strength) {
  const [offsets, reach] = disc(radius(), width), count = offsets.length;
  const places = Int32Array.from(offsets, (each) => each[0]), covers = Float32Array.from(offsets, (each) => each[1] * strength);
  const positions = data.positions, scale = view.scale * ratio;
  const left = size[0] / 2 * ratio - view.x * scale, top = size[1] / 2 * ratio + view.y * scale;
  for (let row = 0; row < head.texts; row++) {
    if (matches && (matches[row] === 1) !== wanted) continue;
    const x = Math.round(positions[2 * row] * scale + left), y = Math.round(top - positions[2 * row + 1] * scale);
    if (!(x >= reach && y >= reach && x < width - reach && y < height - reach)) continue;
    const [red, green, blue] = wanted ? colourOf(row) : colours.faint, at = 4 * (y * width + x);
    for (let k = 0; k < count; k++) {
      const place = at + places[k], cover = covers[k];
      pixels[place] += (red - pixels[place]) * cover;
      pixels[place + 1] += (green - pixels[place + 1]) * cover;
      pixels[place + 2] += (blue - pixels[place + 2]) * cover;
    }
  }
}

function draw() {
  waiting = false;
  const width = canvas.width, height = canvas.height;
  if (!width || !height) return;
  if (!image || image.width !== width || image.height !== height) image = context.createImageData(width, height);
  const [red, green, blue] = colours.paper;
  new Uint32Array(image.data.buffer).fill((255 << 24) | (blue << 16) | (green << 8) | red);
  if (matches) paint(image.data, width, height, false, 0.55);
  paint(image.data, width, height, true, head.texts > 20000 && !matches ? 0.65 : 0.9);
  context.putImageData(image, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const ring = radius() / ratio + 2;
  context.strokeStyle = colours.ring;
  context.lineWidth = 1;
  context.beginPath();
  let rings = 0;
  for (const row of data.marked) {
    const [x, y] = screen(row);
    if (x < 0 || y < 0 || x > size[0] || y > size[1] || (matches && !matches[row])) continue;
    context.moveTo(x + ring, y);
    context.arc(x, y, ring, 0, 7);
    rings++;
  }
  // many rings in a small window would hide the points
  context.globalAlpha = Math.min(1, Math.max(0.12, size[0] * size[1] / (1000 * Math.max(1, rings))));
  context.stroke();
  context.globalAlpha = 1;
  context.strokeStyle = colours.mark;
  if (state.chosen >= 0) {
    const [x, y] = screen(state.chosen);
    context.lineWidth = 1.5;
    context.beginPath();
    for (const row of nearest(state.chosen)) {
      context.moveTo(x, y);
      context.lineTo(...screen(row));
    }
    context.stroke();
    circle(x, y, ring + 5, 3);
  }
  if (state.over >= 0) circle(...screen(state.over), ring + 3, 2);
  context.setTransform(1, 0, 0, 1, 0, 0);
  placeLabels();
}
function circle(x, y, size, width) {
  context.lineWidth = width;
  context.beginPath();
  context.arc(x, y, size, 0, 7);
  context.stroke();
}

// Names of large clusters first; a name that would cover another one waits until there is room.
function placeLabels() {
  const taken = [];
  for (const [place, label] of data.labels.entries()) {
    const {at} = head.clusters[place];
    const x = (at[0] - view.x) * view.scale + size[0] / 2 - label.width / 2;
    const y = (view.y - at[1]) * view.scale + size[1] / 2 - label.height / 2;
    const inside = x >= 0 && y >= 0 && x + label.width <= size[0] && y + label.height <= size[1];
    const free = inside && (state.cluster < 0 || state.cluster === place) && taken.every((box) =>
      x > box[0] + box[2] + 4 || box[0] > x + label.width + 4 || y > box[1] + box[3] + 2 || box[1] > y + label.height + 2);
    label.button.style.visibility = free ? "visible" : "hidden";
    if (free) {
      label.button.style.transform = `translate(${x}px, ${y}px)`;
      taken.push([x, y, label.width, label.height]);
    }
  }
}

function at(x, y, reach) {
  let best = -1, least = reach * reach;
  for (let row = 0; row < head.texts; row++) {
    if (matches && !matches[row]) continue;
    const [left, top] = screen(row), distance = (left - x) ** 2 + (top - y) ** 2;
    if (distance <= least) [best, least] = [row, distance];
  }
  return best;
}
const nearest = (row) => Array.from(data.neighbours.subarray(row * head.nearest, (row + 1) * head.nearest));

function showBox([left, low, right, high]) {
  view.x = (left + right) / 2;
  view.y = (low + high) / 2;
  const room = Math.min((size[0] - 60) / Math.max(right - left, 1e-9), (size[1] - 80) / Math.max(high - low, 1e-9));
  view.scale = Math.min(Math.max(room, 1e-6), view.whole * 200);
  redraw();
}
function wholeBox() {
  let [left, low, right, high] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let row = 0; row < head.texts; row++) {
    left = Math.min(left, data.positions[2 * row]);
    right = Math.max(right, data.positions[2 * row]);
    low = Math.min(low, data.positions[2 * row + 1]);
    high = Math.max(high, data.positions[2 * row + 1]);
  }
  const least = right - left + high - low > 0 ? 0 : 1; // all texts may be at one place
  return [left - least, low - least, right + least, high + least];
}
function showWhole() {
  view.whole = Infinity;
  showBox(data.box);
  view.whole = view.scale;
}
function isWhole() {
  const [left, low, right, high] = data.box;
  return view.scale === view.whole && view.x === (left + right) / 2 && view.y === (low + high) / 2;
}
function zoom(factor, x = size[0] / 2, y = size[1] / 2) {
  const scale = Math.min(Math.max(view.scale * factor, view.whole / 4), view.whole * 1000);
  const [dx, dy] = [x - size[0] / 2, y - size[1] / 2];
  view.x += dx / view.scale - dx / scale;
  view.y -= dy / view.scale - dy / scale;
  view.scale = scale;
  redraw();
}
function move(dx, dy) {
  view.x -= dx / view.scale;
  view.y += dy / view.scale;
  redraw();
}

// Letters and digits, small, without accents. Words of a query are compared with the beginnings of words.
const plain = (text) => ` ${text.normalize("NFKD").toLowerCase().replace(/\p{M}/gu, "").replace(/[^\p{L}\p{N}]+/gu, " ").trim()} `;
const SPACELESS = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;

function filter() {
  const asked = state.query.trim(), words = plain(asked).trim().split(" ").filter(Boolean);
  if (!asked && state.cluster < 0 && !state.duplicates) matches = null;
  else {
    if (asked && !searchable) searchable = data.texts.map(plain);
    const starts = words.map((word) => SPACELESS.test(word) ? word : ` ${word}`);
    matches = new Uint8Array(head.texts);
    for (let row = 0; row < head.texts; row++)
      matches[row] = (state.cluster < 0 || data.clusters[row] === state.cluster) && (!state.duplicates || data.groups[row] >= 0)
        && (!asked || String(data.ids[row]) === asked || (words.length && starts.every((word) => searchable[row].includes(word)))) ? 1 : 0;
  }
  state.over = -1;
  $("tip").hidden = true;
  list();
  redraw();
}

function list() {
  const rows = [];
  let count = matches ? 0 : head.texts;
  if (matches) for (let row = 0; row < head.texts; row++) if (matches[row] && ++count <= SHOWN) rows.push(row);
  $("count").textContent = matches ? `${number(count)} of ${number(head.texts)} texts` : `${number(head.texts)} texts`;
  $("found").hidden = !matches;
  $("found").querySelector("ol").replaceChildren(...rows.map((row) => entry(row)));
  $("more").textContent = count > SHOWN ? `The first ${SHOWN} are listed; all are on the map.` : count ? "" : state.query.trim()
    ? "No text has all of these words." : "No text of this cluster has a near-duplicate.";
  const filters = [];
  if (state.cluster >= 0) filters.push(chip(`Cluster: ${head.clusters[state.cluster].name} ×`, true, () => { state.cluster = -1; filter(); }));
  if (data.marked.length) {
    filters.push(chip(`Duplicates only (${number(data.marked.length)})`, state.duplicates, () => { state.duplicates = !state.duplicates; filter(); }));
  }
  const focused = [...$("filters").children].indexOf(document.activeElement);
  $("filters").replaceChildren(...filters);
  if (focused >= 0) (filters[Math.min(focused, filters.length - 1)] || $("query")).focus();
}
function chip(text, pressed, action) {
  const button = element("button", text);
  button.setAttribute("aria-pressed", pressed);
  button.onclick = action;
  return button;
}
function entry(row, before) {
  const item = element("li"), button = element("button");
  if (before) button.append(element("b", before));
  button.append(element("span", data.texts[row].slice(0, 160), "words"));
  button.onclick = () => choose(row, true);
  item.append(button);
  return item;
}

function choose(row, into) {
  state.chosen = row;
  $("chosen").hidden = row < 0;
  $("tip").hidden = true;
  if (row < 0) return redraw();
  $("text").textContent = data.texts[row];
  const facts = [["id", data.ids[row]]];
  if (data.clusters[row] >= 0) facts.push(["cluster", head.clusters[data.clusters[row]].name]);
  else if (head.clustered) facts.push(["cluster", "none"]);
  if (head.color) facts.push([head.color.name, data.values[row] === null ? "–" : data.values[row]]);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]));
  const group = data.groups[row], same = [];
  if (group >= 0) for (const other of data.marked) if (data.groups[other] === group && other !== row) same.push(other);
  $("group").hidden = group < 0;
  $("group").querySelector("h3").textContent = `Near-duplicates (${number(same.length)})`;
  $("group").querySelector("ol").replaceChildren(...same.slice(0, GROUPS).map((other) => entry(other)));
  const near = nearest(row);
  $("near").hidden = !near.length;
  $("near").querySelector("ol").replaceChildren(...near.map((other, place) =>
    entry(other, (data.cosines[row * head.nearest + place] / 100).toFixed(2))));
  const [x, y] = screen(row);
  if (into && (x < 20 || y < 20 || x > size[0] - 20 || y > size[1] - 20)) {
    view.x = data.positions[2 * row];
    view.y = data.positions[2 * row + 1];
  }
  $("chosen").scrollIntoView({block: "nearest"});
  redraw();
}

function showTip(row, x, y) {
  const tip = $("tip");
  if (row !== state.over) {
    state.over = row;
    redraw();
  }
  tip.hidden = row < 0;
  canvas.style.cursor = row < 0 ? "" : "pointer";
  if (row < 0) return;
  const text = data.texts[row];
  tip.textContent = text.length > 200 ? text.slice(0, 199) + "…" : text;
  const left = Math.max(4, Math.min(x + 14, size[0] - tip.offsetWidth - 4));
  const top = y + 16 + tip.offsetHeight > size[1] ? Math.max(4, y - tip.offsetHeight - 10) : y + 16;
  tip.style.transform = `translate(${left}px, ${top}px)`;
}

function legends(dark) {
  const css = (colour) => `rgb(${colour.join(" ")})`;
  const dot = (colour) => {
    const made = element("i", undefined, "dot");
    made.style.background = css(colour);
    return made;
  };
  $("legend").hidden = !head.clusters.length;
  $("legend").querySelector("ul").replaceChildren(...head.clusters.map((cluster, place) => {
    const item = element("li"), button = element("button");
    if (!head.color) button.append(dot(colours.table[place]));
    button.append(element("span", cluster.name, "words"), element("b", number(cluster.size)));
    button.onclick = () => showCluster(place);
    item.append(button);
    return item;
  }));
  $("colours").hidden = !head.color;
  if (!head.color) return;
  $("colours").querySelector("summary").textContent = `Colour: ${head.color.name}`;
  const items = [];
  const line = (...parts) => {
    const item = element("li");
    item.append(...parts);
    items.push(item);
  };
  if (head.color.values) {
    head.color.values.forEach(({value, size}, place) => line(dot(colours.table[place]), element("span", value, "words"), element("b", number(size))));
    if (head.color.others) line(dot(colours.soft), element("span", "other values", "words"), element("b", number(head.color.others)));
  } else {
    const scale = element("span", undefined, "scale");
    scale.style.background = `linear-gradient(90deg, ${[0, 25, 50, 75, 100].map((share) => css(colours.table[share])).join()})`;
    line(element("span", head.color.low), scale, element("span", head.color.high));
  }
  $("colours").querySelector("ul").replaceChildren(...items);
}
function showCluster(place) {
  state.cluster = place;
  filter();
  showBox(head.clusters[place].box);
}

function listen() {
  const pointers = new Map();
  let travelled = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (!pointers.size) travelled = 0;
    pointers.set(event.pointerId, place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), before = pointers.get(event.pointerId);
    if (!before) return void (event.pointerType !== "touch" && showTip(at(x, y, 12), x, y));
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    if (other) {
      const [a, b] = other[1], wide = (one) => Math.hypot(one[0] - a, one[1] - b);
      move((x - before[0]) / 2, (y - before[1]) / 2);
      zoom(wide([x, y]) / Math.max(1, wide(before)), (x + a) / 2, (y + b) / 2);
      travelled = Infinity;
    } else {
      move(x - before[0], y - before[1]);
      travelled += Math.hypot(x - before[0], y - before[1]);
    }
    pointers.set(event.pointerId, [x, y]);
    if (travelled > 4) showTip(-1);
  });
  const ended = (event) => {
    const clicked = event.type === "pointerup" && pointers.size === 1 && travelled <= 6;
    pointers.delete(event.pointerId);
    if (clicked) choose(at(...place(event), event.pointerType === "touch" ? 24 : 12));
  };
  canvas.addEventListener("pointerup", ended);
  canvas.addEventListener("pointercancel", ended);
  canvas.addEventListener("pointerleave", () => showTip(-1));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * (event.deltaMode ? 30 : 1))) / 400), ...place(event));
  }, {passive: false});
  const keys = {ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": showWhole,
    Enter: () => choose(at(size[0] / 2, size[1] / 2, Infinity))};
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== $("query")) {
      event.preventDefault();
      $("query").focus();
    } else if (event.key === "Escape") {
      if (state.chosen >= 0) choose(-1);
      else if (matches) {
        [state.query, state.cluster, state.duplicates, $("query").value] = ["", -1, false, ""];
        filter();
      }
    }
  });
  let timer;
  $("query").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { state.query = $("query").value; filter(); }, 120);
  });
  $("form").onsubmit = (event) => event.preventDefault();
  $("in").onclick = () => zoom(1.6);
  $("out").onclick = () => zoom(1 / 1.6);
  $("whole").onclick = showWhole;
  $("close").onclick = () => choose(-1);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
  new ResizeObserver(resize).observe($("stage"));
}

function resize() {
  const box = $("stage").getBoundingClientRect(), whole = !size[0] || isWhole();
  size = [box.width, box.height];
  ratio = Math.min(2, devicePixelRatio || 1);
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  for (const label of data.labels) [label.width, label.height] = [label.button.offsetWidth, label.button.offsetHeight];
  if (whole) showWhole();
  if (colours) draw(); // at once, because the new size has cleared the canvas
}

async function begin() {
  const [texts, ids] = [await json("texts"), await json("ids")];
  data = {texts, ids, positions: new Float32Array(await bytes("positions")), clusters: new Int32Array(await bytes("clusters")),
    groups: new Int32Array(await bytes("groups")), neighbours: new Int32Array(await bytes("neighbours")),
    cosines: new Uint8Array(await bytes("cosines")), labels: [], marked: []};
  if (head.color) [data.shades, data.values] = [new Uint8Array(await bytes("shades")), await json("values")];
  data.groups.forEach((group, row) => group >= 0 && data.marked.push(row));
  data.box = wholeBox();
  data.labels = head.clusters.map((cluster, place) => {
    const button = element("button", cluster.name);
    button.title = `${cluster.name}: ${number(cluster.size)} texts`;
    button.tabIndex = -1; // the list of clusters has the same buttons
    button.onclick = () => showCluster(place);
    $("labels").append(button);
    return {button};
  });
  if (head.clusters.length > 12 || innerWidth < 736) $("legend").open = false;
  const share = head.kept === null ? "" : ` They keep ${Math.round(100 * head.kept)} % of the variance, so texts that differ can be near each other.`;
  $("about").textContent = (head.layout === "pca"
    ? `Texts are placed by the first two principal components (PCA) of their vectors.${share}`
    : "Texts are placed by UMAP, which keeps neighbours together; distances between groups mean little.")
    + ` Model: ${head.model.name || "not named"}. Written by textcl ${head.textcl}.`
    + (head.length ? ` Long texts are cut after ${head.length} characters.` : "")
    + (data.marked.length ? " Rings mark texts that have near-duplicates." : "");
  resize();
  theme();
  listen();
  list();
  document.body.dataset.ready = "yes";
}
function sayTrouble(text) {
  $("trouble").hidden = false;
  $("trouble").textContent = text;
  $("count").textContent = text;
}
if (!globalThis.DecompressionStream) sayTrouble("This browser is too old for this map: use Firefox 113, Chrome 80, Safari 16.4 or newer.");
else begin().catch((error) => {
  sayTrouble("This map cannot be shown: the file is damaged. Make it again with textcl map.");
  console.error(error);
});
