"use strict";
(() => {
  const main = document.querySelector("main"), store = `sdg annotate ${main.dataset.page}`;
  const one = (selector) => main.querySelector(selector), all = (selector) => [...main.querySelectorAll(selector)];
  const welcome = one("#welcome"), work = one("#work"), form = welcome.querySelector("form");
  const pictures = all("template").map((template) => ({
    filepath: template.dataset.filepath, width: +template.dataset.width, height: +template.dataset.height,
    prompt: template.content.querySelector("p").textContent, source: template.content.querySelector("img").src,
  }));
  // Per picture: what the editor of boxes holds, and {seconds}.
  let name = "", entered = [], at = 0, since = Date.now();
  const editor = boxEditor(main, { keys: document, changed: () => { keep(); show(); } });

  const { read, keep: keepAs, download, ask, open } = person(store, form, begin);

  function keep() {
    keepAs(`${store} ${name}`, entered);
    keepAs(store, name);
  }
  const fresh = () => ({ clean: false, seconds: 0, boxes: [] });

  function begin(who) {
    name = who;
    const kept = read(`${store} ${name}`);
    entered = pictures.map((_, index) => (Array.isArray(kept) && kept[index] && Array.isArray(kept[index].boxes) ? kept[index] : fresh()));
    one("button.other").textContent = `Not ${name}?`;
    welcome.hidden = true;
    work.hidden = false;
    go(Math.max(0, entered.findIndex(boxFault)));
  }
  function clock() {
    if (!work.hidden) entered[at].seconds += Math.min(600, (Date.now() - since) / 1000); // nobody looks for longer at once
    since = Date.now();
  }
  function go(to) {
    since = Date.now();
    at = to;
    one(".prompt").textContent = pictures[at].prompt;
    editor.load(pictures[at].source, entered[at]);
    show();
  }

  function show() {
    one(".count").textContent = `${at + 1} of ${pictures.length}`;
    one("progress").value = entered.filter((picture) => !boxFault(picture)).length;
    one("button.previous").disabled = at === 0;
    one("button.next").disabled = at === pictures.length - 1;
  }

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
    if (button.matches(".next, .previous")) { clock(); keep(); go(at + (button.matches(".next") ? 1 : -1)); }
    else if (button.matches(".download")) { clock(); keep(); download("annotations", name, written()); }
    else if (button.matches(".other")) {
      clock();
      keep();
      welcome.hidden = false;
      work.hidden = true;
      ask();
    }
  });
  addEventListener("pagehide", () => { if (!work.hidden) { clock(); keep(); } });

  open();
})();
