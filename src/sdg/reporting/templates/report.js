
"use strict";
// What a report does in the browser; root: the document, or what holds sections of one.
function report(root) {
  const all = (root, selector) => [...root.querySelectorAll(selector)];

  // One defect of a card lit up, with its reason on the picture; index null for none.
  function light(card, index) {
    const items = all(card, ".defects > li"), tip = card.querySelector(".tip");
    card.classList.toggle("lit", index !== null);
    items.forEach((item, at) => item.classList.toggle("on", at === index));
    for (const box of all(card, ".box")) box.classList.toggle("on", Number(box.dataset.at) === index);
    tip.hidden = index === null;
    if (index === null) return;
    const item = items[index], name = document.createElement("b");
    const rect = card.querySelector(`.box[data-at="${index}"] .line`);
    name.textContent = `${item.dataset.type} · ${item.querySelector(".tier").textContent}`;
    tip.replaceChildren(name, item.querySelector(".reason").textContent);
    // On the half that the box covers less of.
    const frame = rect && rect.ownerSVGElement.viewBox.baseVal;
    const middle = rect ? rect.y.baseVal.value + rect.height.baseVal.value / 2 : 0;
    tip.classList.toggle("up", Boolean(rect) && middle > frame.height / 2);
  }

  function pinned(card) {
    const at = all(card, ".defects button").findIndex((button) => button.getAttribute("aria-pressed") === "true");
    return at < 0 ? null : at;
  }

  function pin(card, index) {
    const was = pinned(card), now = was === index ? null : index;
    all(card, ".defects button").forEach((b, at) => b.setAttribute("aria-pressed", String(at === now)));
    light(card, now);
  }

  function gallery(section) {
    const holder = section.querySelector(".cards"), cards = all(holder, ".card"), form = section.querySelector("form");
    const count = section.querySelector(".count"), none = section.querySelector(".none");
    const about = new Map(cards.map((card, at) => {
      const items = all(card, ".defects > li"), buttons = all(card, ".defects button");
      buttons.forEach((button, i) => { button.tabIndex = i ? -1 : 0; });
      const worst = Math.max(0, ...items.map((item) => Number(item.dataset.importance)));
      return [card, { at, items, buttons, worst, text: card.textContent.toLowerCase() }];
    }));
    const indexIn = (card, target) => {
      const box = target.closest(".box"), item = target.closest(".defects > li");
      return box ? Number(box.dataset.at) : item ? about.get(card).items.indexOf(item) : null;
    };

    holder.addEventListener("pointerover", (event) => {
      const card = event.target.closest(".card");
      if (card && event.pointerType !== "touch") light(card, indexIn(card, event.target) ?? pinned(card));
    });
    holder.addEventListener("pointerout", (event) => {
      const card = event.target.closest(".card");
      if (card && !card.contains(event.relatedTarget)) light(card, pinned(card));
    });
    holder.addEventListener("click", (event) => {
      const card = event.target.closest(".card"), index = card && indexIn(card, event.target);
      if (index !== null && index !== undefined) pin(card, index);
    });
    holder.addEventListener("focusin", (event) => {
      const card = event.target.closest(".card"), index = indexIn(card, event.target);
      if (index !== null && event.target.matches(":focus-visible")) light(card, index);
    });
    holder.addEventListener("focusout", (event) => {
      const card = event.target.closest(".card");
      if (!card.contains(event.relatedTarget)) light(card, pinned(card));
    });
    holder.addEventListener("keydown", (event) => {
      const card = event.target.closest(".card"), index = indexIn(card, event.target);
      if (index === null || event.altKey || event.ctrlKey || event.metaKey) return;
      const open = (one) => about.get(one).buttons.filter((button) => !button.parentElement.hidden);
      const stop = (one) => open(one).find((button) => button.tabIndex === 0) || open(one)[0];
      const here = open(card), at = here.indexOf(event.target);
      const others = () => all(holder, ".card:not([hidden])").filter((one) => open(one).length);
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      let next = null;
      if (event.key === "ArrowDown") next = here[at + 1];
      else if (event.key === "ArrowUp") next = here[at - 1];
      else if (step) { const list = others(), to = list[list.indexOf(card) + step]; next = to && stop(to); }
      else if (event.key === "Home" || event.key === "End") {
        const list = others(); next = stop(event.key === "Home" ? list[0] : list[list.length - 1]);
      } else if (event.key === "Escape" && pinned(card) !== null) { pin(card, pinned(card)); return; }
      else return;
      event.preventDefault();
      if (!next) return;
      for (const button of about.get(next.closest(".card")).buttons) button.tabIndex = button === next ? 0 : -1;
      next.focus({ focusVisible: true });
      next.scrollIntoView({ block: "nearest" });
    });

    if (!form) return; // of one picture alone
    function apply() {
      const want = Object.fromEntries(new FormData(form)), text = (want.text || "").trim().toLowerCase();
      let shown = 0;
      for (const card of cards) {
        const { items, buttons, text: own } = about.get(card);
        const fits = items.map((item) =>
          (!want.type || item.dataset.type === want.type) && (!want.tier || item.dataset.tier === want.tier));
        const keep = (!want.generator || card.dataset.generator === want.generator)
          && (!want.status || card.dataset.status === want.status)
          && (!(want.type || want.tier) || fits.includes(true)) && (!text || own.includes(text));
        card.hidden = !keep;
        shown += keep;
        items.forEach((item, at) => { item.hidden = !fits[at]; });
        for (const box of all(card, ".box")) box.classList.toggle("off", !fits[Number(box.dataset.at)]);
        const first = fits.indexOf(true);
        buttons.forEach((button, at) => { button.tabIndex = at === first ? 0 : -1; });
        if (card.classList.contains("lit")) light(card, null);
      }
      count.textContent = `${shown.toLocaleString("en")} of ${cards.length.toLocaleString("en")}`;
      none.hidden = shown > 0;
    }
    function sort() {
      const by = { worst: (card) => -about.get(card).worst, most: (card) => -about.get(card).items.length };
      const key = by[form.elements.order.value] || ((card) => about.get(card).at);
      holder.append(...[...cards].sort((a, b) => key(a) - key(b) || about.get(a).at - about.get(b).at));
    }
    form.addEventListener("input", (event) => event.target.name === "order" ? sort() : apply());
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  function slider(compare) {
    const input = compare.querySelector("input");
    if (!input) return;
    const move = () => compare.style.setProperty("--cut", `${input.value}%`);
    input.addEventListener("input", move);
    move();
  }

  function stepper(steps) {
    const figures = all(steps, ".step"), label = steps.querySelector("label");
    if (figures.length < 2) return;
    const input = label.querySelector("input"), output = label.querySelector("output");
    const move = () => {
      figures.forEach((figure, at) => { figure.hidden = at !== Number(input.value); });
      output.textContent = figures[Number(input.value)].dataset.name;
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.max = String(figures.length - 1);
    input.value = input.max;
    input.addEventListener("input", move);
    label.hidden = false;
    steps.classList.add("stepped");
    move();
  }

  all(root, ".gallery").forEach(gallery);
  all(root, ".compare").forEach(slider);
  all(root, ".steps").forEach(stepper);
}
