"use strict";
// The page is complete without this script, which adds text for marks at the pointer or the arrow keys, and sorting.
(() => {
  const tip = document.getElementById("tip");
  let shown = null;
  const hide = () => {
    if (shown) shown.classList.remove("on");
    shown = null;
    tip.textContent = "";
  };
  const show = (mark) => {
    if (mark === shown) return;
    hide();
    shown = mark;
    mark.classList.add("on");
    tip.textContent = mark.dataset.text;
    move();
  };
  const move = () => {
    const box = shown.getBoundingClientRect();
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const left = Math.min(Math.max(4, box.left + box.width / 2 - width / 2), innerWidth - width - 4);
    const above = box.top - height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : Math.min(box.bottom + 8, innerHeight - height - 4)}px`;
  };
  for (const chart of document.querySelectorAll("svg.chart")) {
    const marks = [];
    for (const title of chart.querySelectorAll(".t > title")) {
      const mark = title.parentNode;
      mark.dataset.text = title.textContent;
      title.remove(); // or the browser would show the text a second time
      marks.push(mark);
    }
    if (!marks.length) continue;
    let place = -1;
    chart.tabIndex = 0;
    chart.addEventListener("pointerover", (event) => {
      const mark = event.target.closest(".t");
      if (mark) show(mark);
    });
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("blur", hide);
    chart.addEventListener("keydown", (event) => {
      const last = marks.length - 1;
      const next = {
        ArrowRight: Math.min(place + 1, last), ArrowDown: Math.min(place + 1, last),
        ArrowLeft: Math.max(place - 1, 0), ArrowUp: Math.max(place - 1, 0), Home: 0, End: last,
      }[event.key];
      if (event.key === "Escape") hide();
      if (next === undefined) return;
      event.preventDefault();
      place = next;
      show(marks[place]);
    });
  }
  // A chart that gets the focus scrolls into view, perhaps slowly, while its first mark is shown already.
  const follow = () => {
    if (!shown) return;
    if (document.activeElement === shown.closest("svg.chart")) move();
    else hide();
  };
  addEventListener("scroll", follow, true);
  const number = (text) => {
    const found = text.replace(/[\u2605,<]/g, "").match(/^[-+]?[\d.]+(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
  };
  for (const table of document.querySelectorAll("table.sort")) {
    const body = table.tBodies[0];
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keyed = [...body.rows].map((row) => {
          const text = row.cells[column].textContent.trim();
          return { row, text, value: head.classList.contains("n") ? number(text) : NaN };
        });
        keyed.sort((a, b) => {
          if (Number.isNaN(a.value) !== Number.isNaN(b.value)) return Number.isNaN(a.value) ? 1 : -1;
          const order = Number.isNaN(a.value) ? a.text.localeCompare(b.text) : a.value - b.value;
          return up ? order : -order;
        });
        keyed.forEach(({ row }, place) => row.classList.toggle("later", place >= Number(table.dataset.printed)));
        body.append(...keyed.map(({ row }) => row));
      });
    });
  }
})();
