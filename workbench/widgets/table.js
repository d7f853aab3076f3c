// The page's side of views.Table: draws `shown`, sets `current` (a row's position in the frame), `marked`
// (positions of several, where there may be such), `sort`, `descending`.

function render({ model, el }) {
  const grid = document.createElement("div");
  grid.className = "wb-grid";
  grid.tabIndex = 0;
  const table = grid.appendChild(document.createElement("table"));
  table.setAttribute("role", "grid");
  el.appendChild(grid);
  const note = el.appendChild(document.createElement("div"));
  note.className = "wb-note";

  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  const turned = (id) => {
    const marked = model.get("marked");
    return marked.includes(id) ? marked.filter((one) => one !== id) : [...marked, id];
  };

  const heading = (name, kind) => {
    const sorted = model.get("sort") === name;
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = kind;
    cell.setAttribute("aria-sort", !sorted ? "none" : model.get("descending") ? "descending" : "ascending");
    const button = cell.appendChild(document.createElement("button"));
    button.textContent = name + (!sorted ? "" : model.get("descending") ? " ▾" : " ▴");
    button.title = `sort by ${name}`;
    button.onclick = () => set({ sort: name, descending: sorted && !model.get("descending") });
    return cell;
  };

  const draw = () => {
    const { columns = [], kinds = [], rows = [], ids = [], note: words = "" } = model.get("shown");
    const focused = document.activeElement?.closest("th")?.cellIndex; // drawing anew must not lose the keyboard's place
    const inside = grid.contains(document.activeElement);
    const head = document.createElement("thead");
    const several = model.get("several");
    const first = several ? [document.createElement("th")] : [];
    head.insertRow().append(...first, ...columns.map((name, k) => heading(name, kinds[k])));
    const body = document.createElement("tbody");
    rows.forEach((values, k) => {
      const row = body.insertRow();
      row.dataset.id = ids[k];
      if (several) row.insertCell().className = "wb-mark";
      values.forEach((text, column) => {
        const cell = row.insertCell();
        cell.className = kinds[column];
        if (kinds[column] === "truth") cell.classList.add(text === "✓" ? "wb-right" : "wb-wrong");
        cell.textContent = text;
        cell.title = text.length > 30 ? text : "";
      });
      row.onclick = () => set({ current: ids[k], ...(several ? { marked: turned(ids[k]) } : {}) });
    });
    table.replaceChildren(head, body);
    note.textContent = words;
    grid.setAttribute("aria-label", model.get("label"));
    grid.style.maxHeight = `${model.get("height")}px`;
    if (inside && focused !== undefined) head.rows[0].cells[focused]?.querySelector("button")?.focus();
    mark();
  };

  const mark = () => {
    for (const row of table.tBodies[0]?.rows ?? []) {
      const chosen = Number(row.dataset.id) === model.get("current");
      row.setAttribute("aria-selected", chosen);
      if (model.get("several")) {
        const marked = model.get("marked").includes(Number(row.dataset.id));
        row.setAttribute("aria-checked", marked);
        row.cells[0].textContent = marked ? "☑" : "☐";
      }
      if (chosen) within(row);
    }
  };

  const within = (row) => {
    // of the grid alone: scrollIntoView would move the whole page
    const top = row.offsetTop - (table.tHead?.offsetHeight ?? 0);
    if (top < grid.scrollTop) grid.scrollTop = top;
    const below = row.offsetTop + row.offsetHeight - grid.clientHeight;
    if (below > grid.scrollTop) grid.scrollTop = below;
  };

  grid.onkeydown = (event) => {
    const { ids = [] } = model.get("shown");
    if (!ids.length || event.target !== grid) return;
    const at = ids.indexOf(model.get("current"));
    const stop = () => {
      event.preventDefault();
      event.stopPropagation(); // the notebook would walk through its cells
    };
    if (event.key === " " && at >= 0 && model.get("several")) {
      stop();
      set({ marked: turned(ids[at]) });
      return;
    }
    const last = ids.length - 1;
    const to = {
      ArrowDown: Math.min(at + 1, last),
      ArrowUp: Math.max(at - 1, 0),
      PageDown: Math.min(Math.max(at, 0) + 10, last),
      PageUp: Math.max(at - 10, 0),
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    stop();
    set({ current: ids[to] });
  };

  model.on("change:shown", draw);
  model.on("change:label", draw);
  model.on("change:height", draw);
  model.on("change:current", mark);
  model.on("change:marked", mark);
  draw();
  return () => {
    model.off("change:shown", draw);
    model.off("change:label", draw);
    model.off("change:height", draw);
    model.off("change:current", mark);
    model.off("change:marked", mark);
  };
}

export default { initialize, render };
