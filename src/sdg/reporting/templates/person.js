
"use strict";
// What pages for one person share: whose page it is, what the browser keeps for them, and the file they download.
// store: key of the last name that was entered; form: asks for the name; begin: called with it.
function person(store, form, begin) {
  function read(key) {
    try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
  }
  function keep(key, value) {
    try { localStorage.setItem(key, JSON.stringify(value)); } catch { document.getElementById("unkept").hidden = false; }
  }
  function download(what, name, written) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(written, null, 1)}\n`], { type: "application/json" }));
    link.download = `${what}-${name.replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function ask() {
    form.reset();
    form.elements.name.focus();
  }
  function open() {
    const last = read(store);
    if (typeof last === "string" && last) begin(last);
    else form.elements.name.focus();
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const who = form.elements.name.value.normalize("NFC").replace(/\s+/g, " ").trim();
    if (who) begin(who);
  });
  return { read, keep, download, ask, open };
}
