/* The page of a task: its charts, and the controls that move them. Numbers come from #figures alone. */

const data = JSON.parse(document.getElementById("figures").textContent);
const { bands, trials, confirmed, measures } = data;
const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const largest = Math.max(0.01, ...trials.map((trial) => trial.epsilon)), lowest = Math.min(0, ...trials.map((trial) => trial.epsilon));
const byEpsilon = { domain: [lowest - 0.025 * (largest - lowest), largest + 0.025 * (largest - lowest)], label: "ε" };

/** A metric's value, or a difference of two, as people read it. */
function quantity(value, name, change = false) {
  const { scale, decimals, unit, change_unit: changeUnit, better } = measures[name];
  const text = (scale * value).toFixed(decimals);
  const shown = /[1-9]/.test(text) ? text : text.replace("-", "");
  const signed = (change || better === "nearer 0") && scale * value > 0 && /[1-9]/.test(text) ? `+${shown}` : shown;
  const suffix = change ? changeUnit : unit;
  return signed.replace("-", "−") + (suffix ? `\u00a0${suffix}` : "");
}
const epsilonText = (value) => `ε\u00a0=\u00a0${Number(value.toPrecision(4))}`;
const percent = (share, decimals = 0) => `${plain(100 * share, decimals)}\u00a0%`;
const scaled = (name) => (value) => measures[name].scale * value;
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const labelled = (name, change = false) => {
  const unit = change ? measures[name].change_unit : measures[name].unit;
  return `${change ? "change of " : ""}${measures[name].title}${unit ? `, ${unit}` : ""}`;
};

/* ---- the what-if ------------------------------------------------------------------------------------------------------ */

const form = $("#whatif");
const ecePick = () => $("input[name=ece-kind]:checked", form).value;
const mode = () => $("input[name=mode]:checked", form).value;
const sliders = { loss: $("#loss"), ece: $("#ece"), aurc: $("#aurc") };
const priceInputs = ["wrong", "review", "right"].map((name) => $(`#${name}`));
/** Trials that a curve over ε belongs to: those of a constant ε. */
const constant = trials.filter((trial) => trial.drop === 1);
const priced = constant.filter((trial) => trial.risks.calibrated);

/** The place of ε = 0 in the grid of the fits. */
const zero = Math.max(0, Object.values(bands)[0]?.epsilon.indexOf(0) ?? 0);

/** A slider's range, and where it begins; at its right end it sets no limit. */
function span(slider, most, step, begin) {
  Object.assign(slider, { min: 0, max: Math.max(step, Math.ceil(most / step) * step), step });
  slider.value = begin;
  slider.defaultValue = slider.value;
}

/** Without a fit there is nothing to limit. */
function drop(name) {
  sliders[name].disabled = true;
  $(`#${name}-control`).hidden = true;
}

function prepareLimits() {
  const best = bands.accuracy ? Math.max(...bands.accuracy.mean) : 0;
  if (bands.accuracy) {
    const place = bands.accuracy.mean.indexOf(best);
    const error = (bands.accuracy.high[place] - bands.accuracy.low[place]) / 3.92;
    span(sliders.loss, Math.max(0.5, 100 * (best - Math.min(...bands.accuracy.mean))), 0.05, 100 * error);
  } else drop("loss");
  if (!bands.ece && !bands.ece_calibrated) drop("ece");
  else if (!bands[ecePick()]) $("input[name=ece-kind][value=ece]", form).click();
  if (bands.aurc_calibrated) {
    const rise = bands.aurc_calibrated.shift_high.map((value) => (100 * value) / bands.aurc_calibrated.mean[zero]);
    span(sliders.aurc, Math.max(10, Math.min(200, Math.max(...rise))), 1, 100 * (data.tolerances.aurc_relative ?? 0.05));
  } else drop("aurc");
  for (const input of priceInputs) {
    input.value = data.prices[input.id] ?? "";
    input.defaultValue = input.value;
  }
  if (!priced.length) $(".priced").remove();
}

function prepareEce() {
  const band = bands[ecePick()];
  if (band) span(sliders.ece, 100 * Math.max(...band.high), 0.1, 1000);
}

/** A limit, or null at the right end of its slider. */
const limit = (name) => (!sliders[name].disabled && Number(sliders[name].value) < Number(sliders[name].max) ? Number(sliders[name].value) / 100 : null);

/** Which places of the fitted grid keep each limit. */
function keeping() {
  const cautious = $("#cautious").checked, kept = {};
  if (bands.accuracy) {
    const best = Math.max(...bands.accuracy.mean), most = limit("loss");
    kept.accuracy = bands.accuracy.mean.map((value) => most === null || best - value <= most + 1e-12);
  }
  const ece = bands[ecePick()];
  if (ece && limit("ece") !== null) kept[ecePick()] = ece[cautious ? "high" : "mean"].map((value) => value <= limit("ece"));
  const aurc = bands.aurc_calibrated;
  if (aurc && limit("aurc") !== null) {
    kept.aurc_calibrated = aurc[cautious ? "shift_high" : "shift"].map((value) => value / aurc.mean[zero] <= limit("aurc") + 1e-12);
  }
  return kept;
}

/** The ε nearest to 0 that keeps all limits, as a place of the grid; -1 where none does. */
function smallestKept(kept) {
  const grid = Object.values(bands)[0]?.epsilon ?? [];
  const places = grid.map((_, i) => i).filter((i) => Object.values(kept).every((row) => row[i]));
  return places.reduce((best, i) => (best < 0 || Math.abs(grid[i]) < Math.abs(grid[best]) - 1e-12 ? i : best), -1);
}

/** The expected cost of an example where the surest share is decided and the rest reviewed. */
const costAt = (risk, coverage, [wrong, review, right]) => coverage * (risk * wrong + (1 - risk) * right) + (1 - coverage) * review;

/** The cheapest coverage of a trial, chosen on *calibrate* where its risks are known, and among what its examples promise to be cheaper than a
    review; and the cost there on *select*. */
function priceOf(trial, prices) {
  const costs = (risks) => [prices[1], ...risks.map((risk, i) => costAt(risk, (i + 1) / risks.length, prices))];
  const limits = trial.risks.promised ?? [];
  const chosen = costs(trial.risks.priced ?? trial.risks.calibrated).map((cost, i) => (limits[i - 1] !== undefined && costAt(limits[i - 1], 1, prices) >= prices[1] ? Infinity : cost));
  const place = chosen.indexOf(Math.min(...chosen));
  return { epsilon: trial.epsilon, name: trial.name, coverage: place / (chosen.length - 1), cost: costs(trial.risks.calibrated)[place] };
}

/** What the controls ask for: the chosen ε, what to say of it, and what the charts mark. */
function whatIf() {
  if (mode() === "prices") {
    const prices = priceInputs.map((input) => input.valueAsNumber);
    if (!prices.every(Number.isFinite)) return { epsilon: null, said: ["Give three numbers."], kept: {}, costs: [] };
    const costs = priced.map((trial) => priceOf(trial, prices));
    const cheapest = costs.reduce((best, one) => (one.cost < best.cost - 1e-12 ? one : best));
    const control = costs.find((one) => one.epsilon === 0);
    const saved = control && cheapest.epsilon ? `; at ε\u00a0=\u00a00 it is ${plain(control.cost, 4)}` : "";
    const said = `Decide ${percent(cheapest.coverage)} without a review: ${plain(cheapest.cost, 4)} an example${saved}.`;
    return { epsilon: cheapest.epsilon, said: [`What-if: ${cheapest.name}`, said], kept: {}, costs };
  }
  const kept = keeping(), place = smallestKept(kept);
  if (place < 0) return { epsilon: null, said: ["No ε keeps all these limits.", "Loosen one; or repair confidence afterwards, see below."], kept, costs: [] };
  const epsilon = Object.values(bands)[0].epsilon[place];
  const parts = [];
  if (bands.accuracy) {
    const { mean, shift, shift_low: low, shift_high: high } = bands.accuracy;
    const ends = `${quantity(low[place], "accuracy", true)} to ${quantity(high[place], "accuracy", true)}`;
    parts.push(`accuracy ${quantity(mean[place], "accuracy")}${epsilon ? `, ${quantity(shift[place], "accuracy", true)} against ε\u00a0=\u00a00 (${ends})` : ""}`);
  }
  for (const name of ["ece", "ece_calibrated", "aurc_calibrated"]) if (bands[name]) parts.push(`${measures[name].title} ${quantity(bands[name].mean[place], name)}`);
  return { epsilon, said: [`What-if: ${epsilonText(epsilon)}`, `${capital(parts.join("; "))}.`], kept, costs: [] };
}

function sayLimits() {
  const none = "no limit";
  const said = {
    loss: (value) => `${value.toFixed(2)}\u00a0pp`,
    ece: (value) => `${value.toFixed(1)}\u00a0%`,
    aurc: (value) => `${value.toFixed(0)}\u00a0%`,
  };
  for (const [name, slider] of Object.entries(sliders)) {
    if (slider.disabled) continue;
    const text = limit(name) === null ? none : said[name](Number(slider.value));
    $(`output[for=${name}]`).value = text;
    slider.setAttribute("aria-valuetext", text);
  }
}

function showWhatIf() {
  const found = whatIf();
  sayLimits();
  $(".limits").hidden = mode() === "prices";
  $(".prices").hidden = mode() !== "prices";
  const [first, second] = found.said, result = $(".result");
  if (result.textContent !== first + (second ?? "")) {
    result.replaceChildren(first);
    if (second) result.append(Object.assign(document.createElement("span"), { textContent: second }));
  }
  drawTradeoff(found);
  drawPanels(found);
}

/* ---- the trade-off, and each metric against ε ------------------------------------------------------------------------- */

const against = ["ece", "ece_calibrated", "aurc_calibrated", "nll_calibrated"].filter((name) => bands[name] && bands.accuracy);
const pick = $("#tradeoff select");
for (const name of against) pick.append(new Option(`against ${measures[name].title}`, name));
if (against.includes("ece_calibrated")) pick.value = "ece_calibrated";

function drawTradeoff(found) {
  const figure = $("#tradeoff");
  if (!against.length) { figure.hidden = true; return; }
  const name = pick.value, a = bands.accuracy, b = bands[name];
  const up = scaled("accuracy"), across = scaled(name);
  const points = constant.filter((trial) => trial.shifts.accuracy && trial.shifts[name]);
  const xs = [0, ...b.shift_low, ...b.shift_high, ...points.map((t) => t.shifts[name][0])].map(across);
  const ys = [0, ...a.shift_low, ...a.shift_high, ...points.map((t) => t.shifts.accuracy[0])].map(up);
  const title = measures[name].title;
  const best = a.shift.indexOf(Math.max(...a.shift));
  const c = chart($(".chart", figure), {
    height: matchMedia("(min-width: 60rem)").matches ? 520 : 340,
    x: { domain: range(xs), label: `${labelled(name, true)} against ε\u00a0=\u00a00 → worse` },
    y: { domain: range(ys), label: "change of accuracy against ε\u00a0=\u00a00, pp" },
    summary: `Change of accuracy against change of ${title}, from ε\u00a0=\u00a00 to ${largest}. Accuracy is highest at ${epsilonText(a.epsilon[best])}: `
      + `${quantity(a.shift[best], "accuracy", true)}, where ${title} changes by ${quantity(b.shift[best], name, true)}.`,
  });
  c.upright(0, "axis");
  c.level(0, "axis");
  const ribbon = draw(c.svg, "g", { class: "ribbon" });
  a.epsilon.forEach((_, i) => draw(ribbon, "ellipse", {
    cx: c.sx(across(b.shift[i])), cy: c.sy(up(a.shift[i])),
    rx: Math.abs(c.sx(across(b.shift_high[i])) - c.sx(across(b.shift_low[i]))) / 2,
    ry: Math.abs(c.sy(up(a.shift_high[i])) - c.sy(up(a.shift_low[i]))) / 2,
  }));
  c.line(a.shift.map((value, i) => [across(b.shift[i]), up(value)]));
  const labels = [];
  for (const trial of points) {
    const at = [across(trial.shifts[name][0]), up(trial.shifts.accuracy[0])];
    c.dot(at, `${trial.name}: accuracy ${quantity(trial.shifts.accuracy[0], "accuracy", true)}, ${title} ${quantity(trial.shifts[name][0], name, true)}`);
    const spot = [c.sx(at[0]), c.sy(at[1])];
    if (labels.every(([px, py]) => Math.abs(px - spot[0]) > 34 || Math.abs(py - spot[1]) > 16)) {
      labels.push(spot);
      c.text(...at, Number(trial.epsilon.toPrecision(3)), "strong", "middle", 0, -10);
    }
  }
  const place = found.epsilon === null ? -1 : nearest(a.epsilon, found.epsilon);
  if (place >= 0) c.dot([across(b.shift[place]), up(a.shift[place])], `what-if, ${epsilonText(found.epsilon)}`, "chosen", 7);
  $("figcaption", figure).textContent = "Up is more accurate, left is more honest. Small numbers are ε; circles are trials, the line their smooth fit with its band, the filled circle the what-if.";
  numbersBelow(figure, ["Trial", "change of accuracy", `change of ${title}`],
    points.map((t) => [t.name, quantity(t.shifts.accuracy[0], "accuracy", true), quantity(t.shifts[name][0], name, true)]));
}

/** The place of the number nearest to a value. */
const nearest = (numbers, value) => numbers.reduce((best, number, i) => (Math.abs(number - value) < Math.abs(numbers[best] - value) ? i : best), 0);

const panels = ["accuracy", "ece", "ece_calibrated", "aurc_calibrated", "nll_calibrated", "confidence_gap", "cost"]
  .filter((name) => bands[name] || trials.some((trial) => trial.values[name]));
const panelHosts = Object.fromEntries(panels.map((name) => {
  const figure = document.createElement("figure"), heading = document.createElement("h3"), host = document.createElement("div");
  heading.textContent = capital(measures[name].title);
  host.className = "chart";
  figure.append(heading, host);
  $("#panels").append(figure);
  return [name, figure];
}));

/** Stretches of the grid where a limit is not kept. */
function stretches(grid, kept) {
  const found = [];
  grid.forEach((value, i) => {
    if (kept[i]) return;
    const from = i ? (value + grid[i - 1]) / 2 : value, to = i + 1 < grid.length ? (value + grid[i + 1]) / 2 : value;
    if (found.length && Math.abs(found.at(-1)[1] - from) < 1e-12) found.at(-1)[1] = to;
    else found.push([from, to]);
  });
  return found;
}

function drawPanels(found) {
  for (const [name, figure] of Object.entries(panelHosts)) {
    const live = name === "cost" && found.costs.length > 0;
    const band = live ? undefined : bands[name], s = scaled(name);
    const points = live
      ? found.costs.map((one) => ({ name: one.name, epsilon: one.epsilon, value: one.cost, error: null }))
      : constant.filter((t) => t.values[name]).map((t) => ({ name: t.name, epsilon: t.epsilon, value: t.values[name][0], error: t.values[name][1] }));
    const values = [...points.flatMap((p) => [p.value - (p.error ?? 0), p.value + (p.error ?? 0)]), ...(band ? [...band.low, ...band.high] : [])].map(s);
    const foremost = points.reduce((a, b) => ((measures[name].better === "higher" ? b.value > a.value : Math.abs(b.value) < Math.abs(a.value)) ? b : a), points[0]);
    const c = chart($(".chart", figure), {
      height: 215,
      x: byEpsilon,
      y: { domain: range(values), label: live ? "at your prices" : name === "cost" ? "at the plan's prices" : measures[name].unit },
      summary: `${capital(measures[name].title)} against ε on select, ${points.length} trials from ε\u00a0=\u00a0${plain(lowest)} to ${largest}`
        + (foremost ? `; best at ${foremost.name}: ${quantity(foremost.value, name)}.` : "."),
    });
    if (band && found.kept[name]) {
      for (const [from, to] of stretches(band.epsilon, found.kept[name])) {
        draw(c.svg, "rect", { class: "beyond", x: c.sx(from), y: c.box.top, width: Math.max(0, c.sx(to) - c.sx(from)), height: c.box.bottom - c.box.top });
      }
    }
    if (band) {
      c.area(band.epsilon.map((e, i) => [e, s(band.high[i])]), band.epsilon.map((e, i) => [e, s(band.low[i])]));
      c.line(band.epsilon.map((e, i) => [e, s(band.mean[i])]));
    }
    if (name === ecePick() && limit("ece") !== null && mode() === "limits" && s(limit("ece")) < range(values)[1]) c.level(s(limit("ece")), "limit");
    if (found.epsilon !== null) c.upright(found.epsilon, "mark");
    for (const p of points) {
      if (p.error) draw(c.svg, "line", { class: "bar", x1: c.sx(p.epsilon), x2: c.sx(p.epsilon), y1: c.sy(s(p.value - p.error)), y2: c.sy(s(p.value + p.error)) });
      c.dot([p.epsilon, s(p.value)], `${p.name}: ${quantity(p.value, name)}`, "dot", 3.5);
    }
    numbersBelow(figure, ["Trial", "mean", "standard error"], points.map((p) => [p.name, quantity(p.value, name), p.error === null ? "–" : quantity(p.error, name).replace("+", "")]));
  }
}

/* ---- ε and what else is tuned ----------------------------------------------------------------------------------------- */

const surfaces = Object.entries(data.surfaces).map(([name, surface]) => {
  const figure = document.createElement("figure"), heading = document.createElement("h3"), host = document.createElement("div");
  heading.textContent = `Accuracy by ε and ${name.replaceAll("_", " ")}`;
  host.className = "chart";
  figure.append(heading, host, document.createElement("figcaption"));
  $("#surfaces").append(figure);
  return { name: name.replaceAll("_", " "), figure, ...surface };
});

/** 1, 2, 5, 10, … between two ends, as logarithms. */
function decades(low, high) {
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1) ticks.push(...[1, 2, 5].map((digit) => power + Math.log10(digit)));
  const inside = ticks.filter((tick) => tick >= low - 1e-9 && tick <= high + 1e-9);
  return inside.length > 6 ? inside.filter((tick) => Math.abs(tick - Math.round(tick)) < 1e-9) : inside;
}

function drawSurfaces() {
  for (const { name, figure, epsilon, values, mean, others, trials: measured } of surfaces) {
    const heights = values.map(Math.log10), half = (heights[1] - heights[0]) / 2;
    const least = Math.min(...mean.flat()), most = Math.max(...mean.flat());
    const strength = (value) => (0.06 + 0.88 * Math.max(0, Math.min(1, (value - least) / (most - least || 1)))).toFixed(3);
    const bestRow = epsilon.map((_, i) => mean.reduce((best, row, j) => (row[i] > mean[best][i] ? j : best), 0));
    const first = heights[bestRow[epsilon.indexOf(0)]], last = heights[bestRow.at(-1)];
    const way = Math.abs(last - first) < half ? "is about the same" : last > first ? "is larger" : "is smaller";
    const told = `The best ${name} at ε\u00a0=\u00a0${plain(epsilon.at(-1))} ${way}${way.endsWith("same") ? " as" : " than"} at ε\u00a0=\u00a00.`;
    const edge = (i) => (i === 0 ? epsilon[0] : (epsilon[i - 1] + epsilon[i]) / 2);
    const c = chart($(".chart", figure), {
      height: 280,
      x: { domain: [epsilon[0], epsilon.at(-1)], label: "ε" },
      y: { domain: [heights[0] - half, heights.at(-1) + half], label: name, ticks: decades(heights[0], heights.at(-1)), shown: (tick) => String(Number((10 ** tick).toPrecision(2))) },
      summary: `Fitted accuracy over ε and ${name}. ${told}`,
    });
    epsilon.forEach((value, i) => mean.forEach((row, j) => {
      const [left, right] = [edge(i), i + 1 < epsilon.length ? edge(i + 1) : value].map((at) => Math.round(c.sx(at)));
      const [top, bottom] = [heights[j] + half, heights[j] - half].map((at) => Math.round(c.sy(at)));
      const cell = draw(c.svg, "rect", { class: "cell", x: left, width: right - left, y: top, height: bottom - top, "fill-opacity": strength(row[i]) });
      draw(cell, "title", {}, `${epsilonText(value)}, ${name} ${Number(values[j].toPrecision(3))}: ${quantity(row[i], "accuracy")}`);
    }));
    const ridge = epsilon.map((value, i) => [value, heights[bestRow[i]]]);
    c.line(ridge, "under");
    c.line(ridge, "ridge");
    for (const one of measured) {
      const at = [one.epsilon, Math.log10(one.value)], about = `${one.name}: ${quantity(one.accuracy, "accuracy")}`;
      c.dot(at, about, "ground", 8);
      c.dot(at, about, "measured", 6).parentNode.setAttribute("fill-opacity", strength(one.accuracy));
    }
    $("figcaption", figure).textContent = `From ${quantity(least, "accuracy")}, pale, to ${quantity(most, "accuracy")}, full. Dashed: the best ${name} at each ε. ${told} Circles are trials in the colour of what was measured${others ? `; the fit is shown at ${others}, they have values of their own` : ""}.`;
  }
}

/* ---- reliability ------------------------------------------------------------------------------------------------------ */

/** A form whose radio buttons choose between trials and confirmed ε, and whose slider chooses one of them. */
function chooser(id, property, redraw) {
  const form = $(`#${id}`), slider = $("input[type=range]", form), output = $("output", form);
  const lists = { trials: trials.filter((t) => Object.keys(t[property]).length), confirmed: confirmed.filter((t) => Object.keys(t[property]).length) };
  if (!lists.trials.length || !lists.confirmed.length) {
    const [none, some] = lists.trials.length ? ["confirmed", "trials"] : ["trials", "confirmed"];
    $(`input[value=${none}]`, form).disabled = true;
    $(`input[value=${some}]`, form).checked = true;
  }
  const split = () => $("input[name=split]:checked", form).value;
  const list = () => lists[split()];
  const begin = () => {
    slider.max = Math.max(0, list().length - 1);
    slider.disabled = list().length < 2;
    if (list().length) slider.value = nearest(list().map((t) => t.epsilon), data.epsilon || data.candidate || largest);
  };
  const show = () => {
    const trial = list()[Number(slider.value)];
    if (!trial) return;
    output.value = trial.name;
    slider.setAttribute("aria-valuetext", trial.name);
    redraw(trial, list(), split());
  };
  form.addEventListener("input", (event) => { if (event.target.name === "split") begin(); show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  begin();
  return show;
}

const splitName = { trials: "select", confirmed: "test" };
const diagrams = { raw: "raw", calibrated: "after temperature" };
for (const [kind, title] of Object.entries(diagrams)) {
  const figure = document.createElement("figure"), heading = document.createElement("h3"), host = document.createElement("div");
  const caption = document.createElement("figcaption");
  heading.textContent = capital(title);
  host.className = "chart";
  figure.dataset.kind = kind;
  figure.append(heading, host, caption);
  $("#diagrams").append(figure);
}

function drawReliability(trial, _, split) {
  for (const figure of all("#diagrams figure")) {
    const bins = trial.bins[figure.dataset.kind];
    figure.hidden = !bins;
    if (!bins) continue;
    const outside = bins.rows.filter(([, , , , accuracy, low, high]) => accuracy < low || accuracy > high);
    const gap = `${plain(100 * bins.gap, 1)}\u00a0pp`.replace(/^(?=[1-9]|0\.[1-9])/, "+");
    const told = `ECE ${percent(bins.error, 1)}; confidence − accuracy ${gap}; ${outside.length} of ${bins.rows.length} marks are where a calibrated network's hardly would be.`;
    const c = chart($(".chart", figure), {
      height: 360,
      x: { domain: [0, 1], label: "confidence", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
      y: { domain: [-0.22, 1], label: "accuracy", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
      summary: `Reliability diagram ${diagrams[figure.dataset.kind]}, ${trial.name}, ${splitName[split]}. ${told}`,
    });
    draw(c.svg, "line", { class: "diagonal", x1: c.sx(0), y1: c.sy(0), x2: c.sx(1), y2: c.sy(1) });
    c.level(0, "rule");
    const most = Math.max(...bins.rows.map((row) => row[2]));
    for (const [left, right, share, confidence, accuracy, low, high] of bins.rows) {
      const tall = Math.max(1, (c.sy(-0.2) - c.sy(-0.04)) * (share / most));
      draw(draw(c.svg, "rect", { class: "share", x: c.sx(left) + 1, width: c.sx(right) - c.sx(left) - 2, y: c.sy(-0.2) - tall, height: tall }), "title", {}, `${percent(share, 1)} of the examples`);
      const x = c.sx(confidence), size = Math.max(0.5, Math.min(1, Math.sqrt(share / 0.1)));
      draw(c.svg, "rect", { class: "region", x: x - 4 * size, width: 8 * size, y: c.sy(high), height: Math.max(1, c.sy(low) - c.sy(high)) });
      const told = `confidence ${percent(confidence, 1)}, right ${percent(accuracy, 1)}, ${Math.round(share * bins.examples)} examples; a calibrated network: ${percent(low, 1)} to ${percent(high, 1)}`;
      const y = c.sy(accuracy);
      const shape = accuracy > high ? ["up", `M${x - 7 * size},${y + 5 * size}h${14 * size}l${-7 * size},${-12 * size}z`] : accuracy < low ? ["down", `M${x - 7 * size},${y - 5 * size}h${14 * size}l${-7 * size},${12 * size}z`] : null;
      if (shape) draw(draw(c.svg, "path", { class: shape[0], d: shape[1] }), "title", {}, told);
      else draw(draw(c.svg, "circle", { class: "in", cx: x, cy: y, r: 5 * size }), "title", {}, told);
    }
    $("figcaption", figure).textContent = told;
    numbersBelow(figure, ["Confidence", "examples", "mean confidence", "accuracy", "if calibrated"],
      bins.rows.map(([left, right, share, confidence, accuracy, low, high]) => [`${percent(left)} to ${percent(right)}`, String(Math.round(share * bins.examples)), percent(confidence, 1), percent(accuracy, 1), `${percent(low, 1)} to ${percent(high, 1)}`]));
  }
}

/* ---- risk and coverage ------------------------------------------------------------------------------------------------ */

/** The coverage above which the first errs no more than the second: 0 where it never errs more, 1 where it does even at full coverage. */
const breakEven = (risks, control) => risks.reduce((last, risk, i) => (risk > control[i] + 1e-12 ? i + 1 : last), 0) / risks.length;

function drawRisks(trial, list, split) {
  const kind = $("#risks input[name=kind]:checked").value;
  const control = list.find((one) => one.epsilon === 0), mine = trial.risks[kind], base = control?.risks[kind];
  const figure = $("#curves");
  figure.hidden = !mine;
  if (!mine) return;
  const points = (risks) => risks.map((risk, i) => [(100 * (i + 1)) / risks.length, 100 * risk]);
  const curves = base && trial !== control ? [base, mine] : [mine];
  const settled = curves.flatMap((risks) => risks.slice(Math.floor(risks.length / 20)));
  const top = Math.max(1e-4, ...settled) * 115;
  const crossing = curves.length === 2 ? breakEven(mine, base) : null;
  const told = crossing === null ? "The curve of ε\u00a0=\u00a00 itself; move the slider to compare."
    : crossing === 0 ? `${trial.name} errs no more than ε\u00a0=\u00a00 at any coverage.`
      : crossing >= 1 ? `${trial.name} errs more than ε\u00a0=\u00a00 where all examples are answered.`
        : `Break-even at ${percent(crossing)} coverage: above it ${trial.name} errs no more than ε\u00a0=\u00a00; below, there are coverages where it errs more.`;
  $("h3", figure).textContent = `${trial.name} against ε\u00a0=\u00a00, ${splitName[split]}, ${diagrams[kind]}`;
  const c = chart($(".chart", figure), {
    height: 320,
    x: { domain: [0, 100], label: "coverage: surest share of the examples, %" },
    y: { domain: [0, top], label: "risk: how often they are wrong, %" },
    summary: `Risk against coverage. ${told} At full coverage: ${curves.map((risks, i) => `${i || curves.length === 1 ? trial.name : "ε\u00a0=\u00a00"} ${percent(risks.at(-1), 2)}`).join(", ")}.`,
  });
  const clipped = (risks) => points(risks).map(([x, y]) => [x, Math.min(y, top)]);
  if (curves.length === 2) c.line(clipped(base), "control");
  c.line(clipped(mine), trial === control ? "control" : "");
  if (crossing > 0 && crossing < 1) {
    c.upright(100 * crossing, "mark");
    const left = crossing > 0.6;
    c.text(100 * crossing, top, `break-even ${percent(crossing)}`, "warm", left ? "end" : "start", left ? -6 : 6, 12);
  }
  if (curves.length === 2 && c.box.right > 500) {
    const at = Math.round(0.82 * mine.length) - 1, higher = mine[at] > base[at];
    c.text(at + 1, 100 * mine[at], trial.name, "cool", "end", -6, higher ? -10 : 20);
    c.text(at + 1, 100 * base[at], "ε\u00a0=\u00a00", "strong", "end", -6, higher ? 20 : -10);
  }
  $("figcaption", figure).textContent = curves.length === 2 ? `${told} Solid: ${trial.name}; dashed: ε\u00a0=\u00a00.` : told;
  const shares = [0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 1];
  numbersBelow(figure, ["Coverage", ...(curves.length === 2 ? ["ε\u00a0=\u00a00"] : []), trial.name],
    shares.map((share) => [percent(share), ...curves.map((risks) => percent(risks[Math.round(share * risks.length) - 1], 2))]));
}

/* ---- convergence ------------------------------------------------------------------------------------------------------ */

const learners = trials.filter((trial) => trial.curve.values.length > 1);
const level = $("#level");

/** The first epoch after which a trial's mean accuracy is at least the level, null where it never is. */
function epochsTo(trial, wanted) {
  const place = trial.curve.values.findIndex((value) => value >= wanted - 1e-12);
  return place < 0 ? null : (place + 1) * trial.curve.stride;
}

function prepareLevel() {
  const finals = learners.map((trial) => 100 * Math.max(...trial.curve.values));
  const most = Math.floor(10 * Math.max(...finals)) / 10, least = Math.floor(Math.min(...finals) / 2);
  Object.assign(level, { min: least, max: most, step: most - least > 5 ? 0.5 : 0.1 });
  level.value = Math.min(...finals) - 0.5;
}

function drawConvergence() {
  const wanted = Number(level.value) / 100, text = `${Number(level.value).toFixed(1)}\u00a0%`;
  $("#levels output").value = text;
  level.setAttribute("aria-valuetext", text);
  const told = learners.map((trial) => ({ ...trial, epochs: epochsTo(trial, wanted) }));
  const length = Math.max(...learners.map((t) => t.curve.values.length * t.curve.stride));
  const shown = data.epsilon || data.candidate;
  const control = learners.find((t) => t.epsilon === 0), chosen = shown ? learners[nearest(learners.map((t) => t.epsilon), shown)] : undefined;
  const lowest = Math.min(...learners.map((t) => Math.max(...t.curve.values)));
  const left = chart($("#learning .chart"), {
    height: 280,
    x: { domain: [0, length], label: "epoch" },
    y: { domain: [100 * Math.max(0, Math.min(wanted, lowest) - 0.15), Math.min(100, 100 * Math.max(...learners.flatMap((t) => t.curve.values)) + 1)], label: "accuracy on select, %" },
    summary: `Accuracy after each epoch for ${learners.length} trials. ${control && chosen ? `${chosen.name} and ε\u00a0=\u00a00 stand out.` : ""}`,
  });
  const steps = (trial) => trial.curve.values.map((value, i) => [(i + 1) * trial.curve.stride, 100 * value]).filter(([, y]) => y >= 100 * Math.max(0, Math.min(wanted, lowest) - 0.15));
  for (const trial of learners) if (trial !== control && trial !== chosen) left.line(steps(trial), "quiet");
  if (control) left.line(steps(control), "control");
  if (chosen && chosen !== control) left.line(steps(chosen));
  left.level(100 * wanted, "mark");
  $("#learning figcaption").textContent = `Dashed: ε\u00a0=\u00a00.${chosen && chosen !== control ? ` Strong: ${chosen.name}.` : ""} Thin: the other trials. The level line is the accuracy to reach.`;
  const reached = told.filter((t) => t.epochs !== null), never = told.filter((t) => t.epochs === null);
  const right = chart($("#epochs .chart"), {
    height: 280,
    x: byEpsilon,
    y: { domain: [0, Math.max(2, ...reached.map((t) => t.epochs)) * 1.15], label: `epochs to reach ${text}` },
    summary: `Epochs to reach ${text} against ε: ${told.map((t) => `${t.name} ${t.epochs ?? "not reached"}`).join(", ")}.`,
  });
  right.line(reached.map((t) => [t.epsilon, t.epochs]), "thin");
  for (const t of reached) {
    right.dot([t.epsilon, t.epochs], `${t.name}: ${t.epochs} epochs`, t === chosen ? "chosen" : "dot", 4.5);
    right.text(t.epsilon, t.epochs, t.epochs, "strong", "middle", 0, -9);
  }
  for (const t of never) right.text(t.epsilon, 0, "✗", "warm", "middle", 0, -6);
  $("#epochs figcaption").textContent = never.length ? `✗: not reached in ${length} epochs (${never.map((t) => t.name).join(", ")}).` : `Every trial reaches ${text}.`;
  numbersBelow($("#epochs"), ["Trial", "epochs"], told.map((t) => [t.name, t.epochs === null ? "not reached" : String(t.epochs)]));
}

/* ---- single examples -------------------------------------------------------------------------------------------------- */

function sortCards() {
  const cards = $("#cards"), by = $("#by").value;
  const order = { drop: -1, turned: -1, first: 1, label: 1, index: 1 }[by];
  const key = (card) => order * Number(card.dataset[by]);
  cards.append(...all("li", cards).sort((a, b) => key(a) - key(b) || Number(a.dataset.index) - Number(b.dataset.index)));
}

/** All cards, or the first few. */
function fold(shut) {
  $("#cards").classList.toggle("short", shut);
  $("#more").setAttribute("aria-expanded", String(!shut));
  $("#more").textContent = shut ? `Show all ${$("#cards").children.length}` : "Show fewer";
}

/* ---- begin ------------------------------------------------------------------------------------------------------------ */

for (const part of all(".live")) part.hidden = false;
if (!Object.keys(bands).length) all("#whatif, #tradeoff").forEach((part) => { part.hidden = true; });
prepareLimits();
prepareEce();
form.addEventListener("input", (event) => { if (event.target.name === "ece-kind") prepareEce(); showWhatIf(); });
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { prepareEce(); showWhatIf(); }));
pick.addEventListener("input", () => showWhatIf());
const views = [showWhatIf, drawSurfaces, chooser("bins", "bins", drawReliability)];
if ($("#risks")) views.push(chooser("risks", "risks", drawRisks));
if (learners.length && level) {
  prepareLevel();
  $("#levels").addEventListener("input", drawConvergence);
  $("#levels").addEventListener("submit", (event) => event.preventDefault());
  views.push(drawConvergence);
}
if ($("#order")) {
  $("#order").addEventListener("input", sortCards);
  $("#order").addEventListener("submit", (event) => event.preventDefault());
  $("#more").addEventListener("click", () => fold(!$("#cards").classList.contains("short")));
  if ($("#cards").children.length > 8) fold(true);
  else $("#more").hidden = true;
}
const drawAll = () => views.forEach((view) => view());
let drawnAt = 0;
new ResizeObserver(([entry]) => {
  const width = Math.round(entry.contentRect.width);
  if (width !== drawnAt) { drawnAt = width; drawAll(); }
}).observe($("main"));
