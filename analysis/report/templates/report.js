"use strict";
(() => {
  const { figures, templates } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const wanted = matchMedia("(prefers-color-scheme: dark)");

  // --- figures ---
  const shown = new Map();
  const config = { displaylogo: false, displayModeBar: "hover", responsive: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

  // On a narrow screen a figure is drawn as it is and shown smaller; printed, it is a picture that can be neither cut nor split.
  function fit(box) {
    const { width, height } = figures[box.dataset.figure].layout;
    const scale = Math.min(1, box.parentElement.clientWidth / width);
    const plot = box.querySelector(".plot-container");
    if (!plot || scale === 0) return;
    plot.style.transformOrigin = "0 0";
    plot.style.transform = scale < 1 ? `scale(${scale})` : "";
    box.style.height = `${Math.ceil(height * scale)}px`;
  }

  function draw(box) {
    const figure = figures[box.dataset.figure];
    const layout = { ...figure.layout, template: templates[root.dataset.theme] };
    Plotly.react(box, figure.data, layout, config);
    shown.set(box, root.dataset.theme);
    if (layout.width <= 600) box.closest(".plot").classList.add("column");
    fit(box);
  }

  async function printable(box) {
    const { data, layout } = figures[box.dataset.figure];
    const { width, height } = layout;
    const light = { data, layout: { ...layout, template: templates.light } };
    const picture = document.createElement("img");
    picture.className = "static";
    picture.alt = box.getAttribute("aria-label");
    picture.src = await Plotly.toImage(light, { format: "svg", width, height });
    box.after(picture);
  }

  function theme(name) {
    root.dataset.theme = name;
    for (const [box, drawnIn] of shown) if (drawnIn !== name) draw(box);
  }

  theme(wanted.matches ? "dark" : "light");
  wanted.addEventListener("change", (event) => theme(event.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => theme(root.dataset.theme === "dark" ? "light" : "dark"));
  const boxes = [...document.querySelectorAll("[data-figure]")];
  for (const box of boxes) draw(box);
  addEventListener("resize", () => boxes.forEach(fit));
  (async () => {
    for (const box of boxes) await printable(box);
    root.dataset.printable = "yes";
  })();

  // --- tables ---
  // A cell's place in sorting: a number where it reads as one ("+1.20", "< 0.001", "1,024", "12%"), else its text.
  function key(cell) {
    const text = cell ? cell.textContent.trim() : "";
    const digits = text.replace(/−/g, "-").replace(/^< /, "").replace(/,(?=\d{3}\b)/g, "").replace(/%$/, "");
    const found = /^[+-]?\d*\.?\d+(e[+-]?\d+)?( (to|of) .*)?$/.test(digits) ? parseFloat(digits) : NaN;
    return { empty: text === "", number: found, text };
  }

  function compare(a, b) {
    if (Number.isNaN(a.number) || Number.isNaN(b.number)) return a.text.localeCompare(b.text);
    return a.number - b.number;
  }

  // The last row of heading cells, column by column, through row and column spans.
  function leaves(table) {
    const grid = [];
    [...table.tHead.rows].forEach((row, y, rows) => {
      let x = 0;
      for (const cell of row.cells) {
        while (grid[y] && grid[y][x]) x += 1;
        for (let dy = 0; dy < cell.rowSpan && y + dy < rows.length; dy += 1) {
          grid[y + dy] = grid[y + dy] || [];
          for (let dx = 0; dx < cell.colSpan; dx += 1) grid[y + dy][x + dx] = cell;
        }
        x += cell.colSpan;
      }
    });
    return grid.length ? grid[grid.length - 1] : [];
  }

  // Rows move within their group: between two rows that hold one heading over the whole width.
  function sort(body, column, down) {
    const groups = [[]];
    for (const row of [...body.rows]) {
      if (row.cells.length === 1) groups.push([row], []);
      else groups[groups.length - 1].push(row);
    }
    for (const group of groups) {
      const keyed = group.map((row) => ({ row, ...key(row.cells[column]) }));
      keyed.sort((a, b) => a.empty - b.empty || (down ? -1 : 1) * compare(a, b));
      for (const { row } of keyed) body.appendChild(row);
    }
  }

  for (const table of document.querySelectorAll("main table")) {
    const body = table.tBodies[0];
    if (!table.tHead || !body) continue;
    const headings = leaves(table);
    headings.forEach((heading, column) => {
      heading.setAttribute("aria-sort", "none");
      heading.tabIndex = 0;
      heading.title = "Sort";
      const go = () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        for (const other of headings) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(body, column, down);
      };
      heading.addEventListener("click", go);
      heading.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); }
      });
    });
  }

  for (const input of document.querySelectorAll(".filter")) {
    const rows = input.parentElement.querySelectorAll("tbody tr");
    input.addEventListener("input", () => {
      const sought = input.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(sought);
    });
  }

  // --- navigation and copying ---
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("main section")];
  const mark = () => {
    const passed = sections.filter((section) => section.getBoundingClientRect().top < 120);
    const atEnd = innerHeight + scrollY >= root.scrollHeight - 2;
    const current = atEnd ? sections[sections.length - 1] : passed[passed.length - 1] || sections[0];
    for (const [id, link] of links) link.classList.toggle("here", current && id === current.id);
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.nextElementSibling.textContent);
      button.textContent = "Copied";
    });
  }
})();
