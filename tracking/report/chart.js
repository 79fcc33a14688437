"use strict";

/* Charts: axes, lines and marks as SVG. Colours and fonts come from the style sheet. */

const SVG = "http://www.w3.org/2000/svg";

/** An element of a chart. Text is set as text, never as markup. */
function draw(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

/** Round numbers between two ends, about `count` of them. */
function ticksBetween(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(i * step);
  return ticks;
}

/** A number with a real minus sign and at most so many decimals, without trailing zeros. */
function plain(value, decimals = 4) {
  return String(Number(value.toFixed(decimals))).replace("-", "−");
}

/** The least and the largest of some numbers, a little wider. */
function range(values, slack = 0.06) {
  const known = values.filter((value) => Number.isFinite(value));
  let low = Math.min(...known), high = Math.max(...known);
  if (low === high) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; }
  const margin = slack * (high - low);
  return [low - margin, high + margin];
}

/**
 * An empty chart in `host`, as wide as it is: axes with their ticks, and functions that map values to places.
 * `x` and `y` are {domain, label, ticks?}, `y` with how a tick is `shown`; `summary` is what a screen reader says of the picture.
 */
function chart(host, { height, x, y, summary }) {
  const width = Math.max(240, host.clientWidth || 360);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", summary);
  const yTicks = y.ticks ?? ticksBetween(...y.domain, Math.max(3, Math.round(height / 55)));
  const shown = y.shown ?? plain;
  const longest = Math.max(...yTicks.map((tick) => shown(tick).length));
  const box = { left: 14 + 7.2 * longest, right: width - 10, top: 24, bottom: height - 38 };
  const xTicks = x.ticks ?? ticksBetween(...x.domain, Math.max(3, Math.round(width / 80)));
  const scale = ([low, high], from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);
  const sx = scale(x.domain, box.left, box.right), sy = scale(y.domain, box.bottom, box.top);
  for (const tick of yTicks) {
    draw(svg, "line", { class: "rule", x1: box.left, x2: box.right, y1: sy(tick), y2: sy(tick) });
    draw(svg, "text", { x: box.left - 7, y: sy(tick) + 4, "text-anchor": "end" }, shown(tick));
  }
  for (const tick of xTicks) {
    draw(svg, "line", { class: "axis", x1: sx(tick), x2: sx(tick), y1: box.bottom, y2: box.bottom + 4 });
    draw(svg, "text", { x: sx(tick), y: box.bottom + 17, "text-anchor": "middle" }, plain(tick));
  }
  draw(svg, "line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
  draw(svg, "text", { x: box.left - 4, y: 12 }, y.label);
  draw(svg, "text", { x: box.right, y: height - 4, "text-anchor": "end" }, x.label);
  host.replaceChildren(svg);
  const place = ([px, py]) => `${sx(px).toFixed(1)},${sy(py).toFixed(1)}`;
  return {
    svg, box, sx, sy,
    line: (points, kind = "") => draw(svg, "polyline", { class: `line ${kind}`, points: points.map(place).join(" ") }),
    area: (upper, lower) => draw(svg, "polygon", { class: "band", points: [...upper, ...lower.toReversed()].map(place).join(" ") }),
    dot: ([px, py], told, kind = "dot", radius = 4) => draw(draw(svg, "circle", { class: kind, cx: sx(px), cy: sy(py), r: radius }), "title", {}, told),
    upright: (value, kind) => draw(svg, "line", { class: kind, x1: sx(value), x2: sx(value), y1: box.top, y2: box.bottom }),
    level: (value, kind) => draw(svg, "line", { class: kind, x1: box.left, x2: box.right, y1: sy(value), y2: sy(value) }),
    text: (px, py, words, kind = "", anchor = "start", dx = 0, dy = 0) =>
      draw(svg, "text", { class: kind, x: sx(px) + dx, y: sy(py) + dy, "text-anchor": anchor }, words),
  };
}

/** The numbers of a chart as a table which can be unfolded; it stays open or shut when the chart is drawn again. */
function numbersBelow(figure, header, rows) {
  let fold = figure.querySelector("details.numbers");
  if (!fold) {
    fold = document.createElement("details");
    fold.className = "numbers";
    const summary = document.createElement("summary");
    summary.textContent = "Numbers";
    fold.append(summary, document.createElement("div"));
    Object.assign(fold.lastChild, { className: "scroll", tabIndex: 0, role: "group", ariaLabel: "Numbers" });
    figure.append(fold);
  }
  const table = document.createElement("table");
  const add = (cells, section, kind) => {
    const row = section.insertRow();
    cells.forEach((cell, i) => {
      const node = document.createElement(kind === "th" || i === 0 ? "th" : "td");
      if (node.tagName === "TH") node.scope = kind === "th" ? "col" : "row";
      node.textContent = cell;
      row.append(node);
    });
  };
  add(header, table.createTHead(), "th");
  const body = table.createTBody();
  for (const row of rows) add(row, body, "td");
  fold.lastChild.replaceChildren(table);
}
