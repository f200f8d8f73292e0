
"use strict";
(() => {
  const main = document.querySelector("main"), study = main.dataset.study, store = `sdg study ${study}`;
  const all = (selector) => [...main.querySelectorAll(selector)];
  const [welcome, rating, finished] = ["welcome", "rating", "finished"].map((id) => document.getElementById(id));
  const form = welcome.querySelector("form"), two = rating.querySelector(".two"), prompt = rating.querySelector(".prompt");
  const pairs = new Map(all("template").map((template) => [template.dataset.pair, template.content]));
  let name = "", order = [], ratings = [];

  const { read, keep, download, ask, open } = person(store, form, begin);

  // Numbers from 0 to 1 that a text settles: FNV-1a to begin with, then mulberry32.
  function numbers(text) {
    let state = 2166136261;
    for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 16777619);
    return () => {
      state = (state + 0x6D2B79F5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  // The pairs in this annotator's order, each with its two pictures from left to right.
  function arranged() {
    const next = numbers(`${main.dataset.seed}/${name}`), ids = [...pairs.keys()];
    for (let last = ids.length - 1; last > 0; last -= 1) {
      const other = Math.floor(next() * (last + 1));
      [ids[last], ids[other]] = [ids[other], ids[last]];
    }
    return ids.map((pair) => {
      const pictures = [...pairs.get(pair).querySelectorAll("img")].map((image) => image.dataset.picture);
      return { pair, pictures: next() < 0.5 ? pictures : pictures.reverse() };
    });
  }

  // What is kept for this annotator, as far as it follows the order.
  function kept() {
    const found = (read(`${store} ${name}`) || {}).ratings, list = Array.isArray(found) ? found : [];
    const fits = (one, at) => at < order.length && one && one.pair === order[at].pair
      && ["same", ...order[at].pictures].includes(one.better);
    const end = list.findIndex((one, at) => !fits(one, at));
    return end < 0 ? list : list.slice(0, end);
  }

  function begin(who) {
    name = who;
    order = arranged();
    ratings = kept();
    keep(store, name);
    for (const button of all("button.other")) button.textContent = `Not ${name}?`;
    finished.querySelector(".who").textContent = name;
    show();
  }

  function show() {
    const at = ratings.length, done = at === order.length;
    welcome.hidden = true;
    rating.hidden = done;
    finished.hidden = !done;
    for (const button of all("button.undo")) button.disabled = at === 0;
    if (done) { finished.querySelector(".download").focus(); return; }
    const { pair, pictures } = order[at], copy = document.importNode(pairs.get(pair), true);
    rating.querySelector(".count").textContent = `${(at + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
    rating.querySelector("progress").value = at;
    prompt.textContent = copy.querySelector("p").textContent;
    prompt.scrollTop = 0;
    two.replaceChildren(...pictures.map((id, side) => {
      const image = copy.querySelector(`img[data-picture="${id}"]`), figure = document.createElement("figure");
      image.alt = ["Left or upper picture", "Right or lower picture"][side];
      figure.append(image);
      return figure;
    }));
    if (!rating.contains(document.activeElement)) rating.focus({ preventScroll: true });
  }

  const written = () => ({ study, annotator: name, ratings });
  function changed() {
    keep(`${store} ${name}`, written());
    show();
  }
  function rate(choice) {
    const { pair, pictures } = order[ratings.length];
    ratings.push({ pair, better: choice === "same" ? choice : pictures[choice === "left" ? 0 : 1] });
    changed();
  }
  function undo() {
    if (ratings.pop()) changed();
  }

  main.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.choice) rate(button.dataset.choice);
    else if (button.matches(".undo")) undo();
    else if (button.matches(".download")) download("ratings", name, written());
    else if (button.matches(".other")) {
      welcome.hidden = false;
      rating.hidden = finished.hidden = true;
      ask();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (!welcome.hidden || event.repeat || event.altKey || event.ctrlKey || event.metaKey) return;
    const choice = { ArrowLeft: "left", ArrowDown: "same", ArrowRight: "right" }[event.key];
    if (choice && finished.hidden) rate(choice);
    else if (event.key === "Backspace") undo();
    else return;
    event.preventDefault();
  });
  addEventListener("storage", (event) => { // rated in another tab
    if (event.key === `${store} ${name}` && welcome.hidden) { ratings = kept(); show(); }
  });

  open();
})();
