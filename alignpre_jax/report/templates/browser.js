"use strict";
// The item browser. Everything is put on the page as text, never as markup. What is chosen stands in the address
// after the #, so that a view can be sent to somebody.
(function () {
  const data = JSON.parse(document.getElementById("browser-data").textContent);
  const root = document.getElementById("browser");
  if (!data.items.length) { root.remove(); return; }
  const PAGE = 20;
  const evals = Object.keys(data.evals);
  const others = data.arms.filter((arm) => arm !== data.baseline);
  const unique = (key) => Array.from(new Set(data.items.map((item) => item[key])));
  const choices = {
    eval: evals,
    arm: others.length ? others : data.arms,
    other: data.arms,
    split: ["", ...unique("split")],
    topic: ["", ...unique("topic")],
    only: ["", "disagree", "misaligned", "aligned"],
  };
  const words = {
    eval: "scored by", arm: "arm", other: "compared with", split: "split", topic: "topic", only: "show", text: "text",
  };
  const shown = {
    split: { "": "all" }, topic: { "": "all" },
    only: {
      "": "all items", disagree: "where the two arms disagree", misaligned: "where the arm is misaligned",
      aligned: "where the arm is aligned",
    },
  };
  const state = { eval: evals[0], arm: choices.arm[0], other: data.baseline, split: "", topic: "", only: "", text: "" };
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(state)) {
    const value = asked.get(key);
    if (value !== null && (key === "text" || choices[key].includes(value))) state[key] = value;
  }

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  // Mean lead of the misaligned option over an eval's variants; for generated answers, the misaligned share less 1/2.
  const lead = (item, arm) => {
    const rows = item.results[state.eval][arm].filter((row) => row.length);
    if (!rows.length) return 0;
    const generated = data.evals[state.eval].scoring === "generation";
    const bad = item.misaligned;
    const one = (row) => generated ? (row[3] ? row[2] / row[3] - 0.5 : 0) : row[bad] - row[1 - bad];
    return rows.reduce((sum, row) => sum + one(row), 0) / rows.length;
  };
  const number = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(3);

  const chosen = () => {
    const wanted = state.text.toLowerCase();
    const rows = [];
    for (const item of data.items) {
      if (state.split && item.split !== state.split) continue;
      if (state.topic && item.topic !== state.topic) continue;
      if (wanted && ![item.id, item.question, ...item.options].some((t) => t.toLowerCase().includes(wanted))) continue;
      const mine = lead(item, state.arm), theirs = lead(item, state.other);
      if (state.only === "disagree" && mine > 0 === theirs > 0) continue;
      if (state.only === "misaligned" && !(mine > 0)) continue;
      if (state.only === "aligned" && mine > 0) continue;
      rows.push({ item, mine, theirs });
    }
    return rows.sort((a, b) => Math.abs(b.mine - b.theirs) - Math.abs(a.mine - a.theirs));
  };

  const prompt = (item, layout) => {
    const texts = new Map([
      [data.marks[0], item.question], [data.marks[1], item.options[0]], [data.marks[2], item.options[1]],
    ]);
    return Array.from(layout, (character) => texts.has(character) ? texts.get(character) : character).join("");
  };

  const variant = (item, index) => {
    const about = data.evals[state.eval].variants[index];
    const part = make("div");
    part.append(make("p", about.syntax + (about.order ? ", options swapped" : ""), "eyebrow"));
    part.append(make("pre", prompt(item, about.layouts[item.people ? 1 : 0]), "prompt"));
    const table = make("table"), head = make("tr"), body = make("tbody");
    const generated = data.evals[state.eval].scoring === "generation";
    const titles = generated
      ? ["arm", "misaligned answers", "an answer"]
      : ["arm", "aligned", "misaligned", "lead of misaligned", "misaligned answers"];
    titles.forEach((title) => head.append(make("th", title)));
    for (const arm of Array.from(new Set([state.arm, state.other]))) {
      const row = item.results[state.eval][arm][index];
      const line = make("tr");
      const name = make("th", arm); name.scope = "row"; line.append(name);
      if (!row.length) { line.append(make("td", "\u2014")); body.append(line); continue; }
      const good = row[1 - item.misaligned], bad = row[item.misaligned];
      const count = row[2] + " of " + row[3];
      const cells = generated
        ? [count, row[4] || ""]
        : [number(good), number(bad), number(bad - good), count];
      cells.forEach((cell) => line.append(make("td", cell)));
      body.append(line);
    }
    const top = make("thead"); top.append(head); table.append(top, body);
    const scroll = make("div", undefined, "scroll"); scroll.append(table); part.append(scroll);
    return part;
  };

  const entry = ({ item, mine, theirs }) => {
    const details = make("details", undefined, "item");
    const summary = make("summary");
    summary.append(make("span", item.question, "question"));
    const facts = [item.topic, item.split, item.id].join(" \u00b7 ");
    summary.append(make("span", facts + " \u00b7 lead " + number(mine) + " against " + number(theirs), "eyebrow"));
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (!details.open || details.dataset.full) return;
      details.dataset.full = "yes";
      const list = make("dl", undefined, "options");
      for (const [name, index] of [["aligned", 1 - item.misaligned], ["misaligned", item.misaligned]]) {
        const pair = make("div"); pair.append(make("dt", name), make("dd", item.options[index])); list.append(pair);
      }
      details.append(list);
      data.evals[state.eval].variants.forEach((_, index) => details.append(variant(item, index)));
    });
    return details;
  };

  const form = make("form", undefined, "filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const key of Object.keys(state)) {
    const label = make("label", words[key]);
    const field = make(key === "text" ? "input" : "select");
    field.name = key;
    if (key === "text") { field.type = "search"; }
    for (const value of choices[key] || []) {
      const option = make("option", (shown[key] && shown[key][value]) || value);
      option.value = value; field.append(option);
    }
    field.value = state[key];
    field.addEventListener("input", () => { state[key] = field.value; show(); });
    label.append(field); form.append(label);
  }
  const count = make("p", "", "note"), list = make("div"), more = make("button", "show more");
  count.id = "browser-count"; list.id = "browser-list"; count.setAttribute("aria-live", "polite");
  more.type = "button";
  let rows = [], upto = PAGE;
  const draw = () => {
    list.replaceChildren(...rows.slice(0, upto).map(entry));
    more.hidden = rows.length <= upto;
    const left = data.left_out ? " " + data.left_out + " further items are not in this page." : "";
    const unit = data.evals[state.eval].unit;
    count.textContent = rows.length + " of " + data.items.length + " items, the widest apart first. "
      + "A lead above 0 (" + unit + ") means that the misaligned option is ahead." + left;
  };
  const show = () => {
    rows = chosen(); upto = PAGE; draw();
    const kept = Object.entries(state).filter(([, value]) => value);
    history.replaceState(null, "", "#" + new URLSearchParams(kept).toString());
  };
  more.addEventListener("click", () => { upto += PAGE; draw(); });
  root.append(form, count, list, more);
  rows = chosen(); draw();
  if (asked.has("open") && list.firstChild) list.firstChild.open = true;
})();
