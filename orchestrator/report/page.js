"use strict";
// Sorting of the score table; without it the table is complete and in the sweep's order.
for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = head.querySelector("button");
  button.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const numeric = head.dataset.sort === "number";
    const down = head.getAttribute("aria-sort") === (numeric ? "descending" : "ascending");
    const sign = numeric === down ? 1 : -1;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...body.rows];
    rows.sort((one, two) => {
      const a = value(one), b = value(two);
      if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what is missing comes last either way
      return sign * (numeric ? parseFloat(a) - parseFloat(b) : a.localeCompare(b));
    });
    body.append(...rows);
  });
}
