"use strict";
// Without this script the page redraws itself by <noscript> refresh. With it: fetch the page anew, swap the parts that
// changed, count the clock down in between, and say so when BatSignal itself no longer answers.
(() => {
  const LOOK_MS = 2000, LOST_MS = 10000;
  const main = () => document.querySelector("main");
  const parts = (root) => [...root.querySelectorAll("[data-part]")];
  const sentence = (root) => root.querySelector("h1").textContent;
  const drawn = new Map(parts(document).map((part) => [part.dataset.part, part.outerHTML]));
  const lost = document.getElementById("lost");
  let heard = Date.now(), heardAt = new Date(), said = sentence(document);

  const face = (seconds) => {
    const two = (n) => String(n).padStart(2, "0");
    const whole = Math.max(Math.floor(seconds), 0), hours = Math.floor(whole / 3600);
    const minutes = Math.floor(whole / 60) % 60, rest = two(whole % 60);
    return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
  };

  const localTimes = () => {
    for (const time of document.querySelectorAll("time")) time.title = new Date(time.dateTime).toString();
  };

  const swap = (next) => {
    const old = parts(document), fresh = parts(next), focus = document.activeElement.id;
    const html = fresh.map((part) => part.outerHTML);
    if (old.map((part) => part.dataset.part).join("\n") === fresh.map((part) => part.dataset.part).join("\n")) {
      main().className = next.querySelector("main").className;
      fresh.forEach((part, i) => {
        if (drawn.get(part.dataset.part) !== html[i]) old[i].replaceWith(part);
      });
    } else {
      main().replaceWith(next.querySelector("main"));
    }
    drawn.clear();
    parts(document).forEach((part, i) => drawn.set(part.dataset.part, html[i]));
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
    document.title = next.title;
    document.querySelector("link[rel=icon]").href = next.querySelector("link[rel=icon]").href;
    if (sentence(document) !== said) document.getElementById("said").textContent = said = sentence(document);
    localTimes();
  };

  const look = async () => {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (next.querySelector("style").textContent !== document.querySelector("style").textContent) location.reload();
      swap(next);
      heard = Date.now();
      heardAt = new Date();
    } catch {
      // Shown by tick() once it lasts; one lost request is no news.
    }
    setTimeout(look, LOOK_MS);
  };

  const tick = () => {
    const silent = Date.now() - heard > LOST_MS;
    if (silent !== document.body.classList.contains("lost")) {
      document.body.classList.toggle("lost", silent);
      lost.textContent = `BatSignal itself has not answered since ${heardAt.toISOString().slice(11, 19)} UTC: all below is old.`;
      lost.hidden = !silent;
    }
    if (silent) return;
    for (const clock of document.querySelectorAll("[data-left]"))
      clock.textContent = face(clock.dataset.left - (Date.now() - heard) / 1000);
  };

  localTimes();
  setTimeout(look, LOOK_MS);
  setInterval(tick, 250);
})();
