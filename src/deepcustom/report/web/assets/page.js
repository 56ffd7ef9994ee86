"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const make = (tag, text = "", kind = "") => {
    const one = document.createElement(tag);
    if (text !== "") one.textContent = text;
    if (kind) one.className = kind;
    return one;
  };

  // Colours: as the system has them, light, or dark.
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const remember = (value) => { try { localStorage.setItem("theme", value); } catch { /* not from disk */ } };
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  let chosen = ["light", "dark"].includes(remembered()) ? remembered() : "automatic";
  const theme = () => (chosen === "automatic" ? (prefersDark.matches ? "dark" : "light") : chosen);
  const apply = () => {
    if (chosen === "automatic") delete root.dataset.theme; else root.dataset.theme = chosen;
    button.textContent = `Colours: ${chosen}`;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = { automatic: "light", light: "dark", dark: "automatic" }[chosen];
    remember(chosen);
    apply();
    redraw();
  });
  apply();
  prefersDark.addEventListener("change", () => redraw());

  // Charts, each when it comes into sight.
  const views = new Map();
  const picked = new Map();
  const encodings = (spec) => Object.assign({}, ...[spec, ...(spec.layer ?? [])].map((one) => one.encoding ?? {}));
  const networksOf = (spec) => encodings(spec).color?.scale?.domain ?? [];
  async function draw(place, as = theme()) {
    const spec = data.charts[place.dataset.chart];
    if (!spec || !window.vegaEmbed) return;
    views.get(place)?.finalize();
    views.set(place, null);
    const config = { ...data.configs[as], aria: false };
    const found = await vegaEmbed(place, spec, {
      actions: false, renderer: "svg", ast: true, config, defaultStyle: false,
      tooltip: { theme: "custom", disableDefaultStyle: true },
    });
    views.set(place, found);
    // The place itself says what the chart shows, and a table has its numbers.
    place.querySelector("svg")?.setAttribute("aria-hidden", "true");
    place.dataset.drawn = as;
    show(place);
    legend(place, spec, config);
  }
  function show(place) {
    const view = views.get(place)?.view;
    const names = picked.get(place.dataset.chart);
    if (view && names && networksOf(data.charts[place.dataset.chart]).length) {
      view.signal("chosen", [...names]).runAsync();
    }
  }
  function redraw(as) {
    return Promise.all([...views.keys()].map((place) => draw(place, as)));
  }
  const SHAPES = {
    circle: "M15 2a4 4 0 1 0 .01 0z", square: "M11 2h8v8h-8z", "triangle-up": "M15 1.5l4.5 8h-9z",
    diamond: "M15 1l4 5-4 5-4-5z", cross: "M13.5 1h3v3.5H20v3h-3.5V11h-3V7.5H10v-3h3.5z",
    "triangle-down": "M15 10.5l4.5-8h-9z",
  };
  function swatch(colour, dash, shape) {
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", "0 0 30 12");
    svg.setAttribute("aria-hidden", "true");
    const path = (d, more) => {
      const one = document.createElementNS(ns, "path");
      for (const [k, v] of Object.entries({ d, fill: "none", stroke: colour, "stroke-width": 2, ...more })) one.setAttribute(k, v);
      svg.append(one);
    };
    if (dash) path("M0 6h30", { "stroke-dasharray": dash.join(" ") });
    if (shape) path(SHAPES[shape], { "stroke-width": 1.5 }); else path("M10 6h10", { "stroke-width": 8 });
    return svg;
  }
  function legend(place, spec, config) {
    const box = document.querySelector(`[data-for="${CSS.escape(place.dataset.chart)}"]`);
    if (!box) return;
    const names = networksOf(spec);
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.network : null;
    box.replaceChildren();
    if (!names.length) return;
    const { shape, strokeDash } = encodings(spec);
    const rows = spec.data?.values ?? [];
    const there = new Set(rows.map((row) => row.network));
    const mine = picked.get(place.dataset.chart) ?? new Set();
    picked.set(place.dataset.chart, mine);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Networks to show; none chosen shows all");
    names.forEach((name, at) => {
      if (!there.has(name)) return;
      const one = make("button");
      one.type = "button";
      one.dataset.network = name;
      one.setAttribute("aria-pressed", String(mine.has(name)));
      one.append(swatch(config.range.category[at % config.range.category.length],
        strokeDash?.scale?.range[at], strokeDash ? shape?.scale?.range[at] : null), name);
      one.addEventListener("click", () => {
        if (!mine.delete(name)) mine.add(name);
        one.setAttribute("aria-pressed", String(mine.has(name)));
        show(place);
      });
      box.append(one);
      if (name === focused) one.focus();
    });
  }
  if (window.vegaEmbed) {
    const watch = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting && !views.has(target)) draw(target);
      }
    }, { rootMargin: "400px" });
    all("[data-chart]").forEach((place) => watch.observe(place));
  }

  // Print: everything that matters is open, in light colours.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details[data-print]:not([open])");
    opened.forEach((one) => { one.open = true; });
    redraw("light");
  });
  addEventListener("afterprint", () => { opened.forEach((one) => { one.open = false; }); redraw(); });

  // Tables: a number opens its trace; a table downloads as CSV.
  for (const cell of all("td[data-trace]")) {
    const [subject] = cell.dataset.trace.split("/");
    if (cell.dataset.note) cell.title = cell.dataset.note;
    if (!data.traces[subject]) continue;
    const one = make("button", cell.textContent, "number");
    one.type = "button";
    one.setAttribute("aria-haspopup", "dialog");
    one.addEventListener("click", () => openTrace(cell.dataset.trace, cell.textContent, cell.dataset.note));
    cell.replaceChildren(one);
  }
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  for (const box of all(".table")) {
    const table = box.querySelector("table");
    const one = make("button", "Download CSV", "csv");
    one.type = "button";
    one.setAttribute("aria-label", `Download as CSV: ${table.caption.textContent}`);
    one.addEventListener("click", () => {
      const lines = [...table.rows].map((row) => [...row.cells].map((cell) => quoted(cell.textContent)).join(","));
      const link = make("a");
      link.href = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
      link.download = `${table.dataset.name}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    box.append(one);
  }

  // Traces.
  const dialog = document.getElementById("trace");
  const body = document.getElementById("trace-body");
  document.getElementById("trace-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  const list = (pairs) => {
    const dl = make("dl");
    for (const [name, value] of pairs) {
      const dd = make("dd");
      dd.append(value);
      dl.append(make("dt", name), dd);
    }
    return dl;
  };
  const verdict = (links) => {
    const box = make("span");
    links.forEach(([name, what, detail], at) => {
      if (at) box.append("; ");
      box.append(make("span", what, what.split(" ")[0]), `${name === what ? "" : ` ${name}`}${detail ? ` (${detail})` : ""}`);
    });
    return links.length ? box : "nothing was compared";
  };
  function fold(words, content) {
    const one = make("details");
    one.append(make("summary", words));
    one.addEventListener("toggle", () => { if (one.open && one.childElementCount === 1) one.append(...content()); });
    return one;
  }
  function flat(params, before = "") {
    return Object.entries(params).flatMap(([key, value]) =>
      (value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length
        ? flat(value, `${before}${key}.`) : [[`${before}${key}`, JSON.stringify(value)]]));
  }
  function runOf(trace, name) {
    const run = trace.runs[name];
    const commit = run.commit ? `${run.commit}${run.dirty ? ", with changes" : ""}` : "none recorded";
    const code = trace.code[name.split("@")[0]] ?? {};
    return [
      list([
        ["stage", name], ["started", `${run.started}, took ${run.seconds} s`], ["commit", commit],
        ["code", run.code ? `SHA-256 ${run.code}` : "no digest recorded"],
        ["MLflow run", run.mlflow ?? `none here; its tag deepcustom.run_key is ${run.key}`],
        ["verified", verdict(run.links)],
      ]),
      fold("settings", () => [list(flat(run.params))]),
      ...(Object.keys(code).length ? [fold("code files, as dvc.lock has them now", () => [list(Object.entries(code))])] : []),
      ...run.inputs.map((path) => fold(`read ${path}`, () => fileOf(trace, path))),
      ...(run.skipped ? [make("p", `and ${run.skipped} more inputs that this does not depend on`, "note")] : []),
    ];
  }
  function fileOf(trace, path) {
    const file = trace.files[path];
    if (!file) return [make("p", "no record tells of it")];
    return [
      list([["file", path], ["md5", file.md5], ["verified", verdict(file.links)]]),
      ...(file.run ? [fold(`made by ${file.run}`, () => runOf(trace, file.run))] : []),
    ];
  }
  function openTrace(what, text, note) {
    const [subject, ...rest] = what.split("/");
    const trace = data.traces[subject];
    const [weights, images] = trace.numbers[rest.join("/")] ?? [];
    const part = (title, content) => [make("h3", title), ...content];
    const where = (md5, none) => (trace.paths[md5] ? fileOf(trace, trace.paths[md5]) : [list([["md5", md5 ?? "not recorded"]]), make("p", none, "note")]);
    body.replaceChildren(
      make("p", `${text} %${note ? `, ${note}` : ""}`),
      make("p", trace.verified, "note"),
      ...part("The network's weights", where(weights, "No file with this hash is among what was traced.")),
      ...part("The images", where(images, "These images were made while the network was scored, so no file holds them.")),
      ...part("The scoring", trace.maker ? runOf(trace, trace.maker) : [make("p", "no record tells")]),
      make("p", "The same in a terminal, verified anew:"), make("code", `deepcustom trace ${what}`),
    );
    document.getElementById("trace-head").textContent = `Where ${what} comes from`;
    dialog.showModal();
    body.scrollTop = 0;
  }

  // Galleries.
  for (const box of all("[data-gallery]")) leaf(box, data.galleries[box.dataset.gallery]);
  function leaf(box, known) {
    const sheetOf = (name) => document.querySelector(`[data-sheet="${CSS.escape(`${known.subject}/${name}`)}"]`);
    const choice = (name) => box.querySelector(`[data-choice="${name}"]`);
    const says = (name) => box.querySelector(`[data-says="${name}"]`);
    const { width, height, columns, clean, classes } = known;
    let at = 0;
    let turn = 0;
    const fell = (set, row) => set.predicted[row] !== clean.label[set.of[row]];
    const rows = () => {
      const set = known.sets[choice("attack").value];
      const [label, success] = [choice("class").value, choice("success").value];
      return set.of.map((_, row) => row).filter((row) => (label === "" || clean.label[set.of[row]] === Number(label))
        && (success === "" || fell(set, row) === (success === "1")));
    };
    const paint = (name) => {
      const canvas = box.querySelector(`[data-canvas="${name}"]`);
      canvas.width = width;
      canvas.height = height;
      return canvas.getContext("2d", { willReadFrequently: true });
    };
    const put = (context, image, row) => context.drawImage(image, (row % columns) * width,
      Math.floor(row / columns) * height, width, height, 0, 0, width, height);
    const percent = (share) => `${(100 * share).toFixed(1)} %`;
    async function show() {
      const mine = ++turn;
      const name = choice("attack").value;
      const set = known.sets[name];
      const there = rows();
      const contexts = ["clean", "adversarial", "difference"].map(paint);
      if (!there.length) {
        ["clean", "adversarial", "difference"].forEach((one) => { says(one).textContent = one; });
        says("where").textContent = "No image here is of that kind.";
        return;
      }
      at = (at + there.length) % there.length;
      const row = there[at];
      const of = set.of[row];
      const sheets = [sheetOf(""), sheetOf(name)];
      await Promise.all(sheets.map((one) => one.decode()));
      if (mine !== turn) return;
      put(contexts[0], sheets[0], of);
      put(contexts[1], sheets[1], row);
      const [before, after] = contexts.slice(0, 2).map((one) => one.getImageData(0, 0, width, height).data);
      const difference = contexts[2].createImageData(width, height);
      let largest = 0;
      for (let i = 0; i < before.length; i += 1) {
        const change = after[i] - before[i];
        if (i % 4 !== 3) largest = Math.max(largest, Math.abs(change));
        difference.data[i] = i % 4 === 3 ? 255 : 127.5 + (change / (255 * known.eps)) * 127.5;
      }
      contexts[2].putImageData(difference, 0, 0);
      const truth = classes[clean.label[of]];
      const gone = fell(set, row);
      const caption = (place, begin, bold, kind, end) => says(place).replaceChildren(begin, make("b", bold, kind), end);
      caption("clean", "clean, class ", truth, "", `: answer ${classes[clean.predicted[of]]}, ${percent(clean.confidence[of])} sure`);
      caption("adversarial", `${name}: answer `, classes[set.predicted[row]], gone ? "fell" : "stood", `, ${percent(set.confidence[row])} sure; the network ${gone ? "fell" : "withstood"}`);
      says("difference").textContent = `difference × ${(0.5 / known.eps).toPrecision(2)}; grey is no change; largest ${(largest / 255).toFixed(3)}`;
      says("where").textContent = `${at + 1} of ${there.length}; image ${clean.index[of]} of the test split`;
    }
    const step = (by) => { at += by; show(); };
    all("select", box).forEach((one) => one.addEventListener("change", () => { at = 0; show(); }));
    all("[data-step]", box).forEach((one) => one.addEventListener("click", () => step(Number(one.dataset.step))));
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Images of ${known.subject}; the arrow keys leaf`);
    box.addEventListener("keydown", (event) => {
      if (event.target.tagName === "SELECT") return;
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { event.preventDefault(); step(by); }
    });
    box.hidden = false;
    new IntersectionObserver((entries, watch) => {
      if (entries.some((one) => one.isIntersecting)) { watch.disconnect(); show(); }
    }, { rootMargin: "400px" }).observe(box);
  }
})();
