"use strict";

/* The index: a click on a heading sorts the table by it, another one the other way round. */

const table = document.getElementById("tasks");

/** Sort the rows by a key of theirs: as numbers where they are, else as text; rows without a value stay last. */
function sortBy(head, key) {
  const down = head.getAttribute("aria-sort") === "ascending";
  const value = (row) => row.dataset[key];
  const numbers = !["task", "policy", "date"].includes(key);
  const compare = (a, b) => (numbers ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b)));
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    if (!value(a) || !value(b)) return (value(a) ? 0 : 1) - (value(b) ? 0 : 1);
    return down ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...rows);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  document.getElementById("sorted").textContent = `Sorted by ${head.textContent}, ${down ? "descending" : "ascending"}`;
}

for (const head of table ? table.tHead.rows[0].cells : []) {
  const { key } = head.dataset;
  if (!key) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  button.addEventListener("click", () => sortBy(head, key));
  head.replaceChildren(button);
}
