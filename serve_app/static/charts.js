// The curves of a job, drawn by uPlot: what attempts repeated is faint, and where a job went on is marked.

import { ask, counted } from "./app.js";

const POINTS_IN_TABLE = 60;
const MOST_FADED = 6;
const HEIGHT = 220;
const GROUPS = [
  { name: "Loss", has: (name) => /(^|_)loss$/.test(name) },
  { name: "Learning rate", has: (name) => name === "learning_rate" || name === "lr" },
  { name: "Throughput", has: (name) => /_per_s(econd)?$/.test(name) },
];
const COLOURS = ["--busy", "--warn", "--good", "--idle", "--bad"];

// Columns of numbers, made ready to draw

// For each point: whether a later attempt did its step again.
export function repeated(attempts, steps, resumptions) {
  const wentOn = new Map();
  for (const attempt of attempts) if (!wentOn.has(attempt)) wentOn.set(attempt, 0);
  for (const mark of resumptions) wentOn.set(mark.attempt, mark.step ?? 0);
  const first = Math.min(...wentOn.keys());
  const later = [...wentOn].filter(([attempt]) => attempt !== first);
  return steps.map((step, index) => later.some(([attempt, from]) => attempt > attempts[index] && step > from));
}

function groupsOf(names) {
  const groups = GROUPS.map((group) => ({ name: group.name, series: names.filter(group.has) }));
  const known = groups.flatMap((group) => group.series);
  const others = names.filter((name) => !known.includes(name)).map((name) => ({ name, series: [name] }));
  return [...groups, ...others].filter((group) => group.series.length);
}

// One column for x, and for each series one for what holds and one for each attempt whose steps were repeated.
function columnsOf(document, names, along, isLog) {
  const again = repeated(document.attempt, document.step, document.resumptions);
  const faded = [...new Set(document.attempt.filter((_, index) => again[index]))].slice(-MOST_FADED);
  const xs = [...new Set(document[along])].sort((a, b) => a - b);
  const place = new Map(xs.map((x, index) => [x, index]));
  const columns = [xs];
  const series = [];
  const add = (name, attempt, takes) => {
    const column = new Array(xs.length).fill(null);
    document.series[name].forEach((value, index) => {
      if (value !== null && takes(index) && !(isLog && value <= 0)) column[place.get(document[along][index])] = value;
    });
    columns.push(column);
    series.push({ name, attempt });
  };
  for (const name of names) {
    add(name, null, (index) => !again[index]);
    for (const attempt of faded) add(name, attempt, (index) => again[index] && document.attempt[index] === attempt);
  }
  return { columns, series };
}

function marksOf(document, along) {
  return document.resumptions
    .map((mark) => ({ attempt: mark.attempt, x: along === "step" ? mark.step : Date.parse(mark.at) / 1000 }))
    .filter((mark) => mark.x !== null);
}

// Colours of the theme: a canvas knows no variables

function colourOf(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function faint(colour) {
  return colour.replace(/^rgb\((.*)\)$/, "rgba($1, 0.55)");
}

function onAxis(value) {
  if (value === null) return "";
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6) ? Number(value.toPrecision(3)).toExponential() : numberText(value);
}

function numberText(value) {
  return value == null ? "–" : Number(value.toPrecision(5)).toString();
}

class Chart {
  constructor(group, area, sync) {
    this.group = group;
    this.sync = sync;
    this.figure = document.createElement("figure");
    this.figure.className = "chart";
    this.figure.dataset.chart = group.name;
    const caption = document.createElement("figcaption");
    caption.textContent = group.name;
    this.canvas = document.createElement("div");
    this.figure.append(caption, this.canvas);
    area.append(this.figure);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.canvas);
  }

  size() {
    return { width: Math.max(200, this.canvas.clientWidth), height: HEIGHT };
  }

  show(metrics, view) {
    const names = this.group.series;
    const { columns, series } = columnsOf(metrics, names, view.along, view.isLog);
    this.marks = marksOf(metrics, view.along);
    const shape = JSON.stringify([series, view]);
    if (shape === this.shape) this.update(columns);
    else this.draw(columns, series, names, view);
    this.shape = shape;
    this.describe(metrics, names, columns);
  }

  // What was zoomed to stays.
  update(columns) {
    if (!this.isZoomed) return this.plot.setData(columns);
    const { min, max } = this.plot.scales.x;
    this.plot.setData(columns, false);
    this.plot.setScale("x", { min, max });
  }

  draw(columns, series, names, view) {
    this.plot?.destroy();
    this.isZoomed = false;
    const text = colourOf("--faint");
    const line = colourOf("--line");
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const asTime = view.along === "at";
    this.plot = new uPlot(
      {
        ...this.size(),
        scales: { x: { time: asTime }, y: { distr: view.isLog ? 3 : 1 } },
        axes: [{ ...axis, space: 70 }, { ...axis, size: 64, values: (_, values) => values.map(onAxis) }],
        series: [
          asTime ? { label: "time" } : { label: "step", value: (_, value) => numberText(value) },
          ...series.map((one) => this.line(one, names)),
        ],
        cursor: { drag: { x: true, y: false }, sync: { key: this.sync } },
        legend: { live: true },
        hooks: {
          draw: [(plot) => this.drawMarks(plot)],
          setSelect: [(plot) => (this.isZoomed = plot.select.width > 0)],
        },
      },
      columns,
      this.canvas,
    );
    this.plot.over.addEventListener("dblclick", () => (this.isZoomed = false));
  }

  line({ name, attempt }, names) {
    const colour = colourOf(COLOURS[names.indexOf(name) % COLOURS.length]);
    const isFaded = attempt !== null;
    return {
      label: isFaded ? `${name}, attempt ${attempt}, repeated` : name,
      stroke: isFaded ? faint(colour) : colour,
      width: isFaded ? 1 : 2,
      spanGaps: true,
      value: (_, value) => numberText(value),
    };
  }

  drawMarks(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colourOf("--warn");
    ctx.textAlign = "left";
    ctx.setLineDash([4, 4]);
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (const mark of this.marks) {
      const x = Math.round(plot.valToPos(mark.x, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(`attempt ${mark.attempt}`, x + 4 * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
    }
    ctx.restore();
  }

  // For whoever does not see the canvas, and for tests.
  describe(metrics, names, columns) {
    const count = metrics.series[names[0]].filter((value) => value !== null).length;
    const last = columns[1].findLast((value) => value !== null);
    Object.assign(this.figure.dataset, {
      points: count,
      resumptions: this.marks.length,
      series: this.plot.series.length - 1,
    });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute(
      "aria-label",
      `${this.group.name}: ${counted(count, "point")}, now ${numberText(last)}; went on ${counted(this.marks.length, "time")}. The numbers are in the table below.`,
    );
  }
}

export function startCharts(section) {
  const area = section.querySelector("#chart-area");
  const log = section.querySelector("#chart-log");
  const along = section.querySelector("#chart-x");
  const charts = new Map();
  let newest = null;
  let isLoading = false;
  let isWanted = false;

  function show() {
    if (!newest?.step.length) return;
    const groups = groupsOf(Object.keys(newest.series));
    if (!charts.size) area.replaceChildren();
    area.classList.add("expected");
    for (const group of groups) {
      if (!charts.has(group.name)) charts.set(group.name, new Chart(group, area, "job"));
      const chart = charts.get(group.name);
      chart.group = group; // a loop may begin to say `eval_loss` late
      chart.show(newest, { along: along.value, isLog: log.checked });
    }
    section.querySelector("#chart-tools").hidden = false;
    section.querySelector("#charts-note").textContent =
      newest.total_points > newest.step.length
        ? `${newest.step.length} of ${newest.total_points} points, with every peak. Drag to zoom, double-click to see all.`
        : "Drag to zoom, double-click to see all.";
    section.querySelector("#numbers").hidden = false;
    tabulate();
  }

  function redraw() {
    for (const chart of charts.values()) chart.shape = null;
    show();
  }

  function tabulate() {
    if (!section.querySelector("#numbers").open) return;
    const names = Object.keys(newest.series);
    const table = section.querySelector("#numbers-table");
    const head = table.createTHead();
    head.replaceChildren(rowOf("th", ["Attempt", "Step", ...names]));
    const from = Math.max(0, newest.step.length - POINTS_IN_TABLE);
    const rows = newest.step.slice(from).map((step, offset) => {
      const index = from + offset;
      return rowOf("td", [newest.attempt[index], numberText(step), ...names.map((name) => numberText(newest.series[name][index]))]);
    });
    (table.tBodies[0] ?? table.createTBody()).replaceChildren(...rows);
  }

  async function refresh() {
    isWanted = true;
    if (isLoading) return;
    isLoading = true;
    isWanted = false;
    const began = Date.now();
    try {
      const answer = await ask(section.dataset.charts);
      if (answer.ok) {
        newest = await answer.json();
        show();
        showSamples(newest.samples);
      }
    } catch {
      // The page says by itself that the server is not heard; the curves stay as they are.
    }
    // A chart that is long to load is loaded less often.
    setTimeout(() => {
      isLoading = false;
      if (isWanted && !document.hidden) refresh();
    }, Math.max(2000, 5 * (Date.now() - began)));
  }

  log.addEventListener("change", show);
  along.addEventListener("change", show);
  section.querySelector("#numbers").addEventListener("toggle", () => newest && tabulate());
  document.addEventListener("theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  refresh();
  return { refresh };
}

function rowOf(kind, values) {
  const row = document.createElement("tr");
  for (const value of values) {
    const cell = document.createElement(kind);
    cell.className = "num";
    cell.textContent = value;
    row.append(cell);
  }
  return row;
}

let shownSamples = "";

function showSamples(samples) {
  const text = JSON.stringify(samples);
  if (text === shownSamples) return;
  shownSamples = text;
  document.getElementById("samples").hidden = !samples.length;
  document.getElementById("samples-list").replaceChildren(...samples.map(sampleOf));
}

function sampleOf(sample) {
  const article = document.createElement("article");
  article.className = "sample";
  const when = sample.step === null ? "at the end" : `after step ${sample.step}`;
  for (const [name, words] of [["faint", `${when}, attempt ${sample.attempt}`], ["prompt", sample.prompt], ["said", sample.text]]) {
    const part = document.createElement("p");
    part.className = name;
    part.textContent = words;
    article.append(part);
  }
  return article;
}
