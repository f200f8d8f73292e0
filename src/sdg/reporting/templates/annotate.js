"use strict";
(() => {
  const main = document.querySelector("main"), store = `sdg annotate ${main.dataset.page}`;
  const one = (selector) => main.querySelector(selector), all = (selector) => [...main.querySelectorAll(selector)];
  const welcome = one("#welcome"), work = one("#work"), stage = one(".stage"), svg = one(".stage svg"), list = one(".boxes");
  const fields = one("#fields"), reason = one("#reason"), importance = one("#importance"), subtype = one("#subtype"), type = one("#type");
  const clean = one("#clean"), form = welcome.querySelector("form"), SMALLEST = 3;
  const pictures = all("template").map((template) => ({
    filepath: template.dataset.filepath, width: +template.dataset.width, height: +template.dataset.height,
    prompt: template.content.querySelector("p").textContent, source: template.content.querySelector("img").src,
  }));
  // Per picture: {clean, seconds, boxes: [{box: [x0, y0, x1, y1] of 1000, kind, reason, importance, subtype}]}.
  let name = "", entered = [], at = 0, chosen = -1, kind = "artifact", drawing = null, since = Date.now();

  const { read, keep: keepAs, download, ask, open } = person(store, form, begin);

  function keep() {
    keepAs(`${store} ${name}`, entered);
    keepAs(store, name);
  }
  const fresh = () => ({ clean: false, seconds: 0, boxes: [] });

  function faultOf(picture) {
    if (picture.clean) return picture.boxes.length ? "There is no problem, and there are boxes: keep one or the other." : "";
    if (!picture.boxes.length) return "Draw a box, or say that there is no problem.";
    for (const [index, box] of picture.boxes.entries()) {
      if (!box.reason.trim()) return `Box ${index + 1} has no reason.`;
      if (!/^\d+$/.test(box.importance) || +box.importance < 1 || +box.importance > 100)
        return `Box ${index + 1} needs an importance: a whole number from 1 to 100.`;
    }
    return "";
  }

  function begin(who) {
    name = who;
    const kept = read(`${store} ${name}`);
    entered = pictures.map((_, index) => (Array.isArray(kept) && kept[index] && Array.isArray(kept[index].boxes) ? kept[index] : fresh()));
    one("button.other").textContent = `Not ${name}?`;
    welcome.hidden = true;
    work.hidden = false;
    go(Math.max(0, entered.findIndex((picture) => faultOf(picture))));
  }
  function clock() {
    if (!work.hidden) entered[at].seconds += Math.min(600, (Date.now() - since) / 1000); // nobody looks for longer at once
    since = Date.now();
  }
  function go(to) {
    since = Date.now();
    at = to;
    chosen = -1;
    one(".stage img").src = pictures[at].source;
    one(".prompt").textContent = pictures[at].prompt;
    show();
  }

  function show() {
    const { boxes } = entered[at];
    one(".count").textContent = `${at + 1} of ${pictures.length}`;
    one("progress").value = entered.filter((picture) => !faultOf(picture)).length;
    one("button.previous").disabled = at === 0;
    one("button.next").disabled = at === pictures.length - 1;
    clean.checked = entered[at].clean;
    for (const button of all("[data-kind][role=radio]")) button.setAttribute("aria-checked", String(button.dataset.kind === kind));
    svg.replaceChildren(...[...boxes.map((box) => [box.box, box.kind]), ...(drawing ? [[drawing.box, kind]] : [])].map(([box, of], index) => {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const [x0, y0, x1, y1] = box;
      for (const [key, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) rect.setAttribute(key, value);
      rect.setAttribute("class", of + (index === chosen ? " chosen" : ""));
      return rect;
    }));
    list.replaceChildren(...boxes.map((box, index) => {
      const item = document.createElement("li"), button = document.createElement("button"), what = document.createElement("b");
      button.type = "button";
      button.dataset.box = index;
      button.setAttribute("aria-current", String(index === chosen));
      what.className = box.kind;
      what.textContent = box.kind;
      button.append(what, box.reason || "…");
      item.append(button);
      return item;
    }));
    fields.hidden = chosen < 0;
    if (chosen >= 0) {
      const box = boxes[chosen];
      for (const [field, key] of [[type, "kind"], [reason, "reason"], [importance, "importance"], [subtype, "subtype"]])
        if (field.value !== box[key]) field.value = box[key];
      for (const option of subtype.options) option.hidden = Boolean(option.dataset.kind) && option.dataset.kind !== box.kind;
      const tier = all("[data-floor]").find((span) => +span.dataset.floor <= +box.importance);
      one("output.tier").textContent = box.importance && +box.importance <= 100 && tier ? tier.textContent : "";
    }
    one(".fault").textContent = boxes.length || clean.checked ? faultOf(entered[at]) : "";
  }
  function changed() { keep(); show(); }

  function place(event) {
    const frame = stage.getBoundingClientRect();
    const part = (value, start, length) => Math.round(Math.min(1, Math.max(0, (value - start) / length)) * 1000);
    return [part(event.clientX, frame.left, frame.width), part(event.clientY, frame.top, frame.height)];
  }
  stage.addEventListener("pointerdown", (event) => {
    if (event.button > 0 || drawing) return;
    const [x, y] = place(event);
    drawing = { start: [x, y], box: [x, y, x, y], pointer: event.pointerId };
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drawing || drawing.pointer !== event.pointerId) return;
    const [x, y] = place(event), [a, b] = drawing.start;
    drawing.box = [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)];
    show();
  });
  stage.addEventListener("pointerup", (event) => {
    if (!drawing || drawing.pointer !== event.pointerId) return;
    const { box, start: [x, y] } = drawing, { boxes } = entered[at];
    drawing = null;
    if (box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST) {
      boxes.push({ box, kind, reason: "", importance: "", subtype: "" });
      chosen = boxes.length - 1;
      entered[at].clean = false;
      changed();
      reason.focus({ preventScroll: true });
      return;
    }
    const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0); // a tap chooses the smallest box there
    const under = boxes.filter(({ box: [x0, y0, x1, y1] }) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
    chosen = under.length ? boxes.indexOf(under.reduce((a, b) => (area(b) < area(a) ? b : a))) : -1;
    show();
  });
  stage.addEventListener("pointercancel", () => { drawing = null; show(); });

  for (const [field, key] of [[reason, "reason"], [importance, "importance"], [subtype, "subtype"]])
    field.addEventListener("input", () => { entered[at].boxes[chosen][key] = field.value; changed(); });
  type.addEventListener("input", () => { Object.assign(entered[at].boxes[chosen], { kind: type.value, subtype: "" }); changed(); });
  clean.addEventListener("change", () => { entered[at].clean = clean.checked; changed(); });
  fields.addEventListener("submit", (event) => event.preventDefault());

  // What Label Studio would export: percentages, one result a control, the tag "no problem" for a clean picture.
  function results(picture, { width, height }) {
    const whole = { box: [0, 0, 1000, 1000], kind: "no problem", reason: "", importance: "", subtype: "" };
    return (picture.clean ? [whole, ...picture.boxes] : picture.boxes).flatMap(({ box: [x0, y0, x1, y1], ...said }, index) => {
      const value = { x: x0 / 10, y: y0 / 10, width: (x1 - x0) / 10, height: (y1 - y0) / 10, rotation: 0 };
      const result = (control, type, content) => ({ id: `drawn-${index + 1}`, from_name: control, to_name: "image", type,
        value: { ...value, ...content }, original_width: width, original_height: height, image_rotation: 0 });
      return [
        result("label", "rectanglelabels", { rectanglelabels: [said.kind] }),
        ...(said.reason.trim() ? [result("reason", "textarea", { text: [said.reason.trim()] })] : []),
        ...(said.importance !== "" ? [result("importance", "number", { number: +said.importance })] : []),
        ...(said.subtype ? [result("subtype", "choices", { choices: [said.subtype] })] : []),
      ];
    });
  }
  function written() {
    return pictures.map((picture, index) => {
      const result = results(entered[index], picture), { filepath, prompt } = picture;
      const annotation = { completed_by: { email: name }, lead_time: Math.round(entered[index].seconds), result };
      return { data: { image: filepath, filepath, prompt }, annotations: result.length ? [annotation] : [] };
    });
  }

  main.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || work.hidden) return;
    if (button.dataset.box) { chosen = +button.dataset.box; show(); }
    else if (button.dataset.kind) pick(button.dataset.kind);
    else if (button.matches(".delete")) { entered[at].boxes.splice(chosen, 1); chosen = -1; changed(); }
    else if (button.matches(".next, .previous")) { clock(); keep(); go(at + (button.matches(".next") ? 1 : -1)); }
    else if (button.matches(".download")) { clock(); keep(); download("annotations", name, written()); }
    else if (button.matches(".other")) {
      clock();
      keep();
      welcome.hidden = false;
      work.hidden = true;
      ask();
    }
  });
  function pick(value) {
    kind = value;
    chosen = -1;
    show();
  }
  document.addEventListener("keydown", (event) => {
    if (work.hidden || event.repeat || event.altKey || event.ctrlKey || event.metaKey || event.target.closest("textarea, input, select")) return;
    if (event.key === "1" || event.key === "2") pick(event.key === "1" ? "artifact" : "misalignment");
    else if ((event.key === "Delete" || event.key === "Backspace") && chosen >= 0) { entered[at].boxes.splice(chosen, 1); chosen = -1; changed(); }
    else if (event.key === "Escape") { chosen = -1; drawing = null; show(); }
    else return;
    event.preventDefault();
  });
  addEventListener("pagehide", () => { if (!work.hidden) { clock(); keep(); } });

  open();
})();
