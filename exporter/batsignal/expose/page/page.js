"use strict";
// Without this script <noscript> draws the page anew. With it: each tick brings the page over the event stream, and only
// what changed is put in place, so that focus, selection and scroll stay; clocks count down in between, by the server's
// time. What is old is said to be old, be it that the daemon is gone, the network, or that this machine slept.
(() => {
  const LATE_MS = 6000, LOST_MS = 10000, ASK_MS = 3000, COPIED_MS = 2500;
  const root = document.documentElement, body = document.body;
  const said = document.getElementById("said"), lost = document.getElementById("lost");
  const main = () => document.querySelector("main");
  const here = location.origin + location.pathname; // without a login that may stand in the address: fetch refuses one
  let server = 0, heard = 0, heardAt = 0, told = main().dataset.state, stream = null, asked = 0, copied = null;

  // performance.now() may stand still while a laptop sleeps, Date.now() may be set: the longer of both is safe.
  const silence = () => Math.max(performance.now() - heard, Date.now() - heardAt);
  const hear = () => {
    server = Number(main().dataset.now) * 1000;
    heard = performance.now();
    heardAt = Date.now();
  };

  const face = (seconds) => {
    const two = (n) => String(n).padStart(2, "0");
    const whole = Math.max(Math.floor(seconds), 0), hours = Math.floor(whole / 3600);
    const minutes = Math.floor(whole / 60) % 60, rest = two(whole % 60);
    return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
  };

  const put = (element, text) => {
    if (element && element.textContent !== text) element.textContent = text;
  };

  // -- what changed is put in place ---------------------------------------------------------------------------------

  const key = (node) => (node.nodeType === 1 ? node.id || node.getAttribute("data-part") || "" : "");
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);

  const morph = (old, next) => {
    if (old.nodeType !== 1) {
      if (old.data !== next.data) old.data = next.data;
      return;
    }
    if (old.isEqualNode(next)) return;
    for (const name of old.getAttributeNames()) if (!next.hasAttribute(name) && name !== "title") old.removeAttribute(name);
    for (const name of next.getAttributeNames())
      if (old.getAttribute(name) !== next.getAttribute(name)) old.setAttribute(name, next.getAttribute(name));
    let at = old.firstChild;
    for (const fresh of [...next.childNodes]) {
      let found = at;
      while (found && !alike(found, fresh)) found = found.nextSibling;
      if (!found) {
        old.insertBefore(fresh, at);
        continue;
      }
      while (at !== found) {
        const gone = at;
        at = at.nextSibling;
        gone.remove();
      }
      at = at.nextSibling;
      morph(found, fresh);
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };

  const show = (next, title, icon) => {
    const focus = document.activeElement?.id;
    morph(main(), next);
    if (focus && document.activeElement?.id !== focus) document.getElementById(focus)?.focus({ preventScroll: true });
    if (document.title !== title) document.title = title;
    const link = document.querySelector("link[rel=icon]");
    if (link.getAttribute("href") !== icon) link.setAttribute("href", icon);
    hear();
    dress();
    // A change of state is told, the numbers that move with each tick are not.
    if (main().dataset.state !== told) {
      told = main().dataset.state;
      put(said, title.replace(" \u00b7 BatSignal", ""));
    }
  };

  const dress = () => {
    for (const time of document.querySelectorAll("time")) {
      const local = `${new Date(time.dateTime)}`;
      if (time.title !== local) time.title = local;
    }
    for (const button of document.querySelectorAll("button[data-copy]"))
      put(button.lastElementChild, copied === button.id ? "Copied" : "Copy");
    tick();
  };

  // -- where it comes from ------------------------------------------------------------------------------------------

  const connect = () => {
    stream?.close();
    stream = null;
    if (!body.dataset.stream) return;
    stream = new EventSource(new URL(body.dataset.stream, here));
    stream.addEventListener("status", (event) => {
      const page = JSON.parse(event.data).page;
      if (page.build !== root.dataset.build) return location.reload();
      const next = document.createElement("template");
      next.innerHTML = page.main;
      show(next.content.querySelector("main"), page.title, page.icon);
    });
  };

  // For when the stream is silent (a proxy that holds it back, a daemon that starts), and for pages that have none.
  const ask = async () => {
    asked = performance.now();
    try {
      const answer = await fetch(here + location.search, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) return;
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (next.documentElement.dataset.build !== root.dataset.build) return location.reload();
      show(next.querySelector("main"), next.title, next.querySelector("link[rel=icon]").getAttribute("href"));
    } catch {
      // Told by tick() once it lasts; one lost request is no news.
    }
  };

  const tick = () => {
    const live = body.dataset.stream || main().dataset.every, silent = silence(), isLost = Boolean(live) && silent > LOST_MS;
    const late = body.dataset.stream ? LATE_MS : Number(main().dataset.every) * 1000;
    if (live && silent > late && performance.now() - asked > ASK_MS) {
      if (stream?.readyState === EventSource.CLOSED || isLost) connect();
      ask();
    }
    if (isLost === lost.hidden) {
      const since = new Date(server).toISOString().slice(11, 19);
      lost.textContent = `BatSignal itself has not answered since ${since} UTC: all below is old.`;
      lost.hidden = !isLost;
      body.classList.toggle("lost", isLost);
    }
    put(document.getElementById("feed"), isLost ? "Old" : live ? "Live" : "Ended");
    if (isLost) return;
    for (const clock of document.querySelectorAll("[data-until]"))
      put(clock, face(clock.dataset.until - (server + silent) / 1000));
  };

  // -- copy ---------------------------------------------------------------------------------------------------------

  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea"); // plain HTTP from another machine has no clipboard
    area.value = text;
    area.className = "unseen";
    body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    await copy(button.dataset.copy);
    button.focus();
    copied = button.id;
    put(said, "Copied");
    dress();
    setTimeout(() => {
      if (copied === button.id) copied = null;
      dress();
    }, COPIED_MS);
  });

  root.classList.add("scripted");
  hear();
  dress();
  connect();
  addEventListener("pageshow", (event) => event.persisted && connect());
  addEventListener("online", connect);
  setInterval(tick, 250);
})();
