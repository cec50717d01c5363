(() => {
  "use strict";
  const units = { K: 1e3, M: 1e6, G: 1e9, " µs": 1e-6, " ms": 1e-3 };
  // what a cell is sorted by: its first number, else its text; null where it is empty
  const valueOf = cell => {
    const text = cell.textContent.trim().replace(/\u2212/g, "-");
    const found = text.match(/^[+<>]?\s*(-?\d+(?:\.\d+)?)((?:[KMG]| [µm]s)(?![A-Za-z]))?/);
    return text === "" ? null : found ? Number(found[1]) * (units[found[2]] || 1) : text.toLowerCase();
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  const sort = (table, column, direction) => {
    for (const body of table.tBodies) {
      body.sourceOrder ||= [...body.rows];
      const rows = body.sourceOrder.filter(row => row.cells.length > column);
      const heads = body.sourceOrder.filter(row => row.cells.length <= column);
      const keyed = rows.map(row => [valueOf(row.cells[column]), row]);
      const sign = direction === "descending" ? -1 : 1;
      if (direction !== "none") {
        keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b));
        body.append(...heads, ...keyed.map(([, row]) => row));
      } else body.append(...body.sourceOrder);
    }
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const [top, sub] = table.tHead.rows, columns = [];
    let below = 0;
    for (const head of top.cells) {
      if (head.colSpan > 1 || (sub && head.rowSpan === 1))
        for (let i = 0; i < head.colSpan; i++) columns.push(sub.cells[below++]);
      else columns.push(head);
    }
    columns.forEach((head, column) => {
      if (!head.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.ariaSort = "none";
      button.addEventListener("click", () => {
        const first = head.dataset.better === "high" ? "descending" : "ascending";
        const second = first === "descending" ? "ascending" : "descending";
        const next = { none: first, [first]: second, [second]: "none" }[head.ariaSort];
        for (const each of columns) each.ariaSort = "none";
        head.ariaSort = next;
        sort(table, column, next);
      });
    });
  }
  // curves: a button per row shows and hides it; pointing at it, or at its line, puts it before the others
  for (const chart of document.querySelectorAll(".chart")) {
    const marks = row => chart.querySelectorAll(`g[data-row="${row}"]`);
    const lift = row => {
      chart.classList.toggle("lifted", row !== null);
      for (const mark of chart.querySelectorAll("g[data-row]")) mark.classList.toggle("up", mark.dataset.row === row);
    };
    const buttons = [...chart.querySelectorAll(".key li[data-row]")].map(item => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...item.childNodes);
      item.append(button);
      const show = on => {
        button.ariaPressed = String(on);
        for (const mark of marks(item.dataset.row)) mark.classList.toggle("off", !on);
      };
      show(true);
      button.addEventListener("click", () => show(button.ariaPressed !== "true"));
      for (const name of ["pointerenter", "focus"]) button.addEventListener(name, () => lift(item.dataset.row));
      for (const name of ["pointerleave", "blur"]) button.addEventListener(name, () => lift(null));
      return show;
    });
    for (const [words, on] of [["show all", true], ["hide all", false]]) {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.className = "all";
      button.textContent = words;
      button.addEventListener("click", () => buttons.forEach(show => show(on)));
      item.append(button);
      chart.querySelector(".key").append(item);
    }
    for (const mark of chart.querySelectorAll("g[data-row]")) {
      mark.addEventListener("pointerenter", () => lift(mark.dataset.row));
      mark.addEventListener("pointerleave", () => lift(null));
    }
    chart.classList.add("live");
  }
})();
