"use strict";
// Why a picture's boxes are no annotation yet, in one sentence; "" where they are.
function boxFault({ clean, boxes }) {
  if (clean) return boxes.length ? "There is no problem, and there are boxes: keep one or the other." : "";
  if (!boxes.length) return "Draw a box, or say that there is no problem.";
  for (const [index, box] of boxes.entries()) {
    if (!box.reason.trim()) return `Box ${index + 1} has no reason.`;
    if (!/^\d+$/.test(box.importance) || +box.importance < 1 || +box.importance > 100)
      return `Box ${index + 1} needs an importance: a whole number from 1 to 100.`;
  }
  return "";
}

// The boxes of one picture: drawn, moved, resized, described and deleted by mouse, touch and keyboard, with undo.
// root: what holds the markup of boxes.html. keys: what hears the keys. changed: is called after every change.
function boxEditor(root, { keys, changed }) {
  const one = (selector) => root.querySelector(selector), all = (selector) => [...root.querySelectorAll(selector)];
  const stage = one(".stage"), svg = one(".stage svg"), list = one(".boxes"), fields = one("#fields"), clean = one("#clean");
  const type = one("#type"), reason = one("#reason"), importance = one("#importance"), subtype = one("#subtype");
  const SMALLEST = 3, STEP = 5, KINDS = ["artifact", "misalignment"], GRIPS = ["nw", "ne", "sw", "se", "move"];
  // {clean, boxes: [{box: [x0, y0, x1, y1] of 1000, kind, reason, importance, subtype}]}; numbers are as typed.
  let picture = { clean: false, boxes: [] }, chosen = -1, kind = "artifact", drag = null, past = [], future = [], typing = null;
  const within = (value, low, high) => Math.min(high, Math.max(low, value));

  const state = () => JSON.stringify({ clean: picture.clean, boxes: picture.boxes });
  // What a change is about to replace; the letters typed into one field are one change.
  function remember(field = null) {
    const same = field !== null && field === typing;
    typing = field;
    if (same) return;
    past.push(state());
    if (past.length > 200) past.shift();
    future = [];
  }
  function step(from, to) {
    if (!from.length) return;
    to.push(state());
    Object.assign(picture, JSON.parse(from.pop()));
    typing = null;
    chosen = -1;
    done();
  }
  function done() { show(); changed(); }

  function grips([x0, y0, x1, y1]) {
    return { nw: [x0, y0], ne: [x1, y0], sw: [x0, y1], se: [x1, y1], move: [(x0 + x1) / 2, (y0 + y1) / 2] };
  }
  // A box that one of its grips was taken along by (dx, dy).
  function dragged([x0, y0, x1, y1], grip, dx, dy) {
    if (grip === "move") {
      const [x, y] = [within(dx, -x0, 1000 - x1), within(dy, -y0, 1000 - y1)];
      return [x0 + x, y0 + y, x1 + x, y1 + y];
    }
    if (grip[1] === "w") x0 = within(x0 + dx, 0, x1 - SMALLEST); else x1 = within(x1 + dx, x0 + SMALLEST, 1000);
    if (grip[0] === "n") y0 = within(y0 + dy, 0, y1 - SMALLEST); else y1 = within(y1 + dy, y0 + SMALLEST, 1000);
    return [x0, y0, x1, y1];
  }

  function shape(name, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }
  function show() {
    const { boxes } = picture, drawn = drag && !drag.grip ? [{ box: drag.box, kind }] : [];
    clean.checked = picture.clean;
    for (const button of all("[data-kind][role=radio]")) {
      button.setAttribute("aria-checked", String(button.dataset.kind === kind));
      button.tabIndex = button.dataset.kind === kind ? 0 : -1;
    }
    svg.replaceChildren(...[...boxes, ...drawn].map(({ box: [x0, y0, x1, y1], kind: of }, index) =>
      shape("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: of + (index === chosen ? " chosen" : "") })));
    for (const grip of all(".grip")) grip.remove();
    if (chosen >= 0) for (const [name, [x, y]] of Object.entries(grips(boxes[chosen].box))) {
      const grip = document.createElement("span");
      grip.className = `grip ${name} ${boxes[chosen].kind}`;
      grip.style.cssText = `left: ${x / 10}%; top: ${y / 10}%`;
      stage.append(grip);
    }
    const focused = list.contains(root.activeElement ?? document.activeElement);
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
    if (focused && chosen >= 0) list.children[chosen].firstChild.focus({ preventScroll: true });
    fields.hidden = chosen < 0;
    if (chosen >= 0) {
      const box = boxes[chosen];
      for (const [field, key] of [[type, "kind"], [reason, "reason"], [importance, "importance"], [subtype, "subtype"]])
        if (field.value !== box[key]) field.value = box[key];
      for (const option of subtype.options) option.hidden = Boolean(option.dataset.kind) && option.dataset.kind !== box.kind;
      const tier = all("[data-floor]").find((span) => +span.dataset.floor <= +box.importance);
      one("output.tier").textContent = box.importance && +box.importance <= 100 && tier ? tier.textContent : "";
    }
    one("button.undo").disabled = !past.length;
    one("button.redo").disabled = !future.length;
    one(".fault").textContent = boxes.length || clean.checked ? boxFault(picture) : "";
  }

  function place(event) {
    const frame = stage.getBoundingClientRect();
    const part = (value, start, length) => Math.round(within((value - start) / length, 0, 1) * 1000);
    return [part(event.clientX, frame.left, frame.width), part(event.clientY, frame.top, frame.height)];
  }
  // The grip of the chosen box under a pointer: the nearest in reach, which a small box's size limits.
  function gripAt(event) {
    if (chosen < 0) return null;
    const frame = stage.getBoundingClientRect(), { box } = picture.boxes[chosen];
    const side = Math.min((box[2] - box[0]) * frame.width, (box[3] - box[1]) * frame.height) / 1000;
    const reach = within(side / 4, 6, event.pointerType === "touch" ? 22 : 12);
    const near = Object.entries(grips(box)).map(([name, [x, y]]) => [name, Math.hypot(
      event.clientX - frame.left - (x * frame.width) / 1000, event.clientY - frame.top - (y * frame.height) / 1000)]);
    const [name, distance] = near.reduce((a, b) => (b[1] < a[1] ? b : a));
    return distance <= reach ? name : null;
  }
  stage.addEventListener("pointerdown", (event) => {
    if (event.button > 0 || drag) return;
    const [x, y] = place(event), grip = gripAt(event);
    drag = { start: [x, y], box: grip ? picture.boxes[chosen].box : [x, y, x, y], grip, pointer: event.pointerId, moved: false };
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
    stage.focus({ preventScroll: true });
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag || drag.pointer !== event.pointerId) return;
    const [x, y] = place(event), [a, b] = drag.start;
    if (!drag.grip) drag.box = [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)];
    else if (drag.moved || x !== a || y !== b) {
      if (!drag.moved) remember();
      drag.moved = true;
      picture.boxes[chosen].box = dragged(drag.box, drag.grip, x - a, y - b);
    }
    show();
  });
  stage.addEventListener("pointerup", (event) => {
    if (!drag || drag.pointer !== event.pointerId) return;
    const { box, grip, moved, start: [x, y] } = drag;
    drag = null;
    if (moved) { done(); return; }
    if (!grip && box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST) { add(box); return; }
    const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0); // a tap chooses the smallest box there
    const under = picture.boxes.filter(({ box: [x0, y0, x1, y1] }) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
    chosen = under.length ? picture.boxes.indexOf(under.reduce((a, b) => (area(b) < area(a) ? b : a))) : -1;
    show();
  });
  stage.addEventListener("pointercancel", () => { drag = null; show(); });

  function add(box) {
    remember();
    picture.boxes.push({ box, kind, reason: "", importance: "", subtype: "" });
    chosen = picture.boxes.length - 1;
    picture.clean = false;
    done();
    reason.focus({ preventScroll: true });
  }
  function remove() {
    remember();
    picture.boxes.splice(chosen, 1);
    chosen = -1;
    done();
    stage.focus({ preventScroll: true });
  }
  function pick(value) {
    kind = value;
    chosen = -1;
    show();
  }

  for (const [field, key] of [[reason, "reason"], [importance, "importance"], [subtype, "subtype"]])
    field.addEventListener("input", () => { remember(`${key} ${chosen}`); picture.boxes[chosen][key] = field.value; done(); });
  type.addEventListener("input", () => { remember(); Object.assign(picture.boxes[chosen], { kind: type.value, subtype: "" }); done(); });
  clean.addEventListener("change", () => { remember(); picture.clean = clean.checked; done(); });
  fields.addEventListener("submit", (event) => event.preventDefault());
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.box) { chosen = +button.dataset.box; show(); }
    else if (button.dataset.kind) pick(button.dataset.kind);
    else if (button.matches(".delete")) remove();
    else if (button.matches(".add")) add([400, 400, 600, 600]);
    else if (button.matches(".undo")) step(past, future);
    else if (button.matches(".redo")) step(future, past);
  });
  keys.addEventListener("keydown", (event) => {
    const target = event.composedPath()[0];
    if (!stage.getClientRects().length || (target.closest && target.closest("textarea, input, select"))) return;
    const along = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    const command = (event.ctrlKey || event.metaKey) && event.key.toLowerCase();
    if (command === "z" && !event.altKey) step(...(event.shiftKey ? [future, past] : [past, future]));
    else if (command === "y") step(future, past);
    else if (command || event.altKey) return;
    else if (along && target.closest && target.closest("[role=radio]")) {
      pick(KINDS[1 - KINDS.indexOf(kind)]);
      one("[role=radio][aria-checked=true]").focus();
    } else if (along && chosen >= 0) {
      remember(`keys ${chosen}`);
      picture.boxes[chosen].box = dragged(picture.boxes[chosen].box, event.shiftKey ? "se" : "move", ...along);
      done();
    } else if (event.repeat) return;
    else if (event.key === "1" || event.key === "2") pick(KINDS[event.key - 1]);
    else if (event.key === "n") add([400, 400, 600, 600]);
    else if (event.key === "Enter" && target === stage && chosen >= 0) reason.focus();
    else if ((event.key === "Delete" || event.key === "Backspace") && chosen >= 0) remove();
    else if (event.key === "Escape") { chosen = -1; drag = null; show(); }
    else return;
    event.preventDefault();
  });

  return {
    // Another picture; what was done to the one before cannot be undone any more.
    load(source, given) {
      picture = given;
      [chosen, drag, past, future, typing] = [-1, null, [], [], null];
      const image = one(".stage img");
      image.onload = () => stage.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
      image.src = source;
      show();
    },
  };
}
