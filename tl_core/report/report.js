// The page is whole without this: it adds sorting, arrow keys in the confusion matrix, and words for a filtered list.
(() => {
  "use strict";

  // Tables: a click on a column's title sorts by it.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          const gap = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
          return down ? -gap : gap;
        });
        body.append(...rows);
        for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      });
    });
  }

  // The confusion matrix: one stop of the tab key, arrows go to the next cell with rows.
  const heat = document.querySelector("svg.heat");
  const box = heat?.closest(".scroll"); // an SVG that listens to focus would be a stop of the tab key itself
  const cells = heat ? [...heat.querySelectorAll("a")] : [];
  const at = (cell) => cell.dataset.at.split(" ").map(Number);
  const only = (chosen) => cells.forEach((cell) => cell.setAttribute("tabindex", cell === chosen ? 0 : -1));
  if (cells.length) only(cells.find((cell) => cell.matches(".miss")) ?? cells[0]);
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  box?.addEventListener("keydown", (event) => {
    const step = steps[event.key], here = event.target.closest("a");
    if (!step || !here) return;
    event.preventDefault();
    const [row, column] = at(here);
    let next = null, nearest = Infinity;
    for (const cell of cells) {
      const [r, c] = at(cell);
      const along = (r - row) * step[0] + (c - column) * step[1];
      const aside = Math.abs((r - row) * step[1]) + Math.abs((c - column) * step[0]);
      if (along > 0 && along + 100 * aside < nearest) [next, nearest] = [cell, along + 100 * aside];
    }
    if (next) { only(next); next.focus(); }
  });
  box?.addEventListener("focusin", (event) => { const cell = event.target.closest("a"); if (cell) only(cell); });

  // The list of rows: the style sheet hides the other cells' rows; say what is shown, and mark the cell.
  const said = document.getElementById("shown-rows");
  const list = document.getElementById("rows");
  const tell = () => {
    const group = list && location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
    const filtered = group && group.tagName === "TBODY" && list.contains(group);
    for (const cell of cells) {
      if (filtered && cell.getAttribute("href") === location.hash) cell.setAttribute("aria-current", "true");
      else cell.removeAttribute("aria-current");
    }
    if (said) said.textContent = filtered ? "Shown: " + group.dataset.words : said.dataset.all;
    if (filtered) group.querySelector("th").focus({ preventScroll: true });
  };
  addEventListener("hashchange", tell);
  tell();

  // A row that a gallery shows as well: its content stands in the file once, and is shown here too.
  for (const link of document.querySelectorAll("#rows a.twin")) {
    const sample = document.querySelector(link.getAttribute("href") + " .sample");
    if (sample) link.before(...[...sample.childNodes].map((node) => node.cloneNode(true)));
  }

  // A link into a folded part opens it, and printing unfolds everything.
  const open = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
  addEventListener("hashchange", open);
  open();
  addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((part) => (part.open = true)));
})();
