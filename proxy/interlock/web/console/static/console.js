// Keys, live lists, and the care that nothing is approved that was never on screen. Pages work without this script.
"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const body = document.body;
  const notice = one("#notice");

  const tell = (text, link) => {
    notice.textContent = text;
    if (link) { const a = document.createElement("a"); a.href = link.href; a.textContent = link.text; notice.append(" ", a); }
    notice.hidden = false;
    clearTimeout(tell.timer);
    if (!link) tell.timer = setTimeout(() => { notice.hidden = true; }, 4000);
  };

  // -- how long is left ------------------------------------------------------------------------------------------------
  const remaining = (seconds) => seconds <= 0 ? "over" : seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.floor(seconds / 60)} min`
    : seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
  // The server's clock counts: what it said at the start, and how long this page has been open since.
  const ends = new WeakMap();
  const tick = () => {
    for (const time of all("time[data-left]")) {
      if (!ends.has(time)) ends.set(time, performance.now() + Number(time.dataset.left) * 1000);
      const seconds = Math.floor((ends.get(time) - performance.now()) / 1000);
      time.textContent = (time.dataset.label || "") + remaining(seconds);
      time.classList.toggle("soon", seconds < 60);
    }
  };
  tick();
  setInterval(tick, 1000);

  // -- what was on screen -----------------------------------------------------------------------------------------------
  const command = one("[data-command]"), approve = one("[data-approve]"), seenNote = one("[data-seen]");
  let unseen = new Set(), looked = false;
  const gate = () => {
    if (!approve || !seenNote) return;
    const waits = unseen.size > 0;
    approve.toggleAttribute("data-unread", waits);
    approve.setAttribute("aria-disabled", String(waits));
    seenNote.hidden = !waits || !looked; // nothing flashes before the browser has looked for the first time
    seenNote.textContent = `Read to the end of the command to approve it: ${unseen.size === 1 ? "one line" : `${unseen.size} lines`} to go.`;
  };
  if (command && approve && "IntersectionObserver" in window) {
    unseen = new Set([...all("li", command), one("[data-end]", command)]);
    const hidden = Math.ceil((one(".decide")?.offsetHeight || 0)), top = Math.ceil(one(".bar")?.offsetHeight || 0);
    const observer = new IntersectionObserver((entries) => {
      looked = true;
      for (const entry of entries) if (entry.isIntersecting) { unseen.delete(entry.target); observer.unobserve(entry.target); }
      gate();
    }, { rootMargin: `-${top}px 0px -${hidden}px 0px` });
    for (const line of unseen) observer.observe(line);
    gate();
    approve.addEventListener("click", (event) => {
      if (!unseen.size) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      tell("Read the whole command first: scroll to its end.");
    }, true);
  }

  // -- deciding ---------------------------------------------------------------------------------------------------------
  const form = one("#decision"), deny = one("[data-deny]"), reason = one("#reason");
  let armed = null; // which answer Enter gives
  const arm = (answer) => { armed = answer; body.classList.toggle("deciding-deny", answer === "deny"); };
  const submit = (button) => { if (button && !button.disabled) button.click(); };
  const passphrase = () => form && one("input[name=passphrase]", form);
  const startApprove = () => {
    if (!approve || approve.disabled) return tell("This can't be approved here.");
    if (unseen.size) return tell("Read the whole command first: scroll to its end.");
    if (passphrase() && !passphrase().value) { arm("approve"); passphrase().focus(); return tell("Your passphrase, then Enter approves."); }
    submit(approve);
  };
  const startDeny = () => {
    if (!deny) return;
    if (armed === "deny") return sendArmed();
    arm("deny");
    reason.focus();
    tell("Say why, then Enter denies. Esc leaves.");
  };
  const sendArmed = () => {
    if (passphrase() && !passphrase().value) { passphrase().focus(); return tell(`Your passphrase, then Enter ${armed === "deny" ? "denies" : "approves"}.`); }
    submit(armed === "deny" ? deny : approve);
  };
  if (form && approve && !form.dataset.sign) {
    const label = () => {
      const scope = form.elements.scope?.value || "once", minutes = form.elements.minutes?.value;
      approve.textContent = scope === "once" ? "Approve once" : scope === "exact" ? `Approve for ${minutes} min` : `Approve in this session, ${minutes} min`;
    };
    form.addEventListener("input", label);
    label();
  }
  if (form) {
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || !armed || event.target.tagName === "BUTTON") return;
      event.preventDefault();
      sendArmed();
    });
    form.addEventListener("focusout", (event) => { if (event.relatedTarget && !form.contains(event.relatedTarget) && event.relatedTarget !== deny) arm(null); });
    for (const button of all("button[form=decision]")) button.addEventListener("click", () => {
      if (reason) reason.required = false;
    });
    let sent = false;
    form.addEventListener("submit", (event) => { if (sent) event.preventDefault(); else if (!form.dataset.sign) { sent = true; setTimeout(() => { sent = false; }, 4000); } });
  }

  // -- keys -------------------------------------------------------------------------------------------------------------
  const help = one("#help");
  for (const hint of all("[data-keys]")) hint.hidden = false;
  for (const button of all("[data-help]")) { button.hidden = false; button.addEventListener("click", () => help.showModal()); }
  const typing = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;
  const rows = () => all("[data-row]");
  const move = (by) => {
    const list = rows(), at = list.indexOf(document.activeElement);
    const next = list[at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(list.length - 1, Math.max(0, at + by))];
    if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
  };
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented || event.repeat && "adeg?".includes(event.key)) return;
    if (event.key === "Escape") {
      const menu = one(".menu[open]");
      if (menu) { menu.open = false; one("summary", menu).focus(); } else if (typing(event.target)) { event.target.blur(); if (armed === "approve") arm(null); } else arm(null);
      return;
    }
    if (typing(event.target) || one("dialog[open]")) return;
    const go = going > performance.now();
    going = 0;
    if (go) {
      const link = one(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); location.assign(link.href); }
      return;
    }
    const keys = {
      g: () => { going = performance.now() + 1500; },
      j: () => move(1), k: () => move(-1),
      a: startApprove, d: startDeny,
      e: () => { const edit = one("#edit"); if (edit) { edit.open = true; one("textarea", edit).focus(); edit.scrollIntoView({ block: "center" }); } },
      u: () => { const back = one(".crumb a"); if (back) location.assign(back.href); },
      "?": () => help?.showModal(),
    };
    if (Object.hasOwn(keys, event.key) && (form || !"ad".includes(event.key))) { event.preventDefault(); keys[event.key](); }
  });
  document.addEventListener("click", (event) => { const menu = one(".menu[open]"); if (menu && !menu.contains(event.target)) menu.open = false; });

  // -- what changes meanwhile -------------------------------------------------------------------------------------------
  const live = one("[data-live]"), request = body.dataset.request;
  if (!live && !request) return;
  let touched = -Infinity;
  for (const kind of ["pointerdown", "wheel", "touchmove", "keydown"]) addEventListener(kind, () => { touched = performance.now(); }, { passive: true });
  const busy = () => performance.now() - touched < 800;
  const dirty = () => all("input, textarea, select").some((f) => (f === document.activeElement && f.tagName !== "SELECT" && !f.closest("[data-live]"))
    || (f.type === "radio" ? f.checked !== f.defaultChecked : f.tagName === "SELECT" ? false : f.value !== f.defaultValue)) || one("dialog[open]") !== null;

  const renew = async () => {
    const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
    if (answer.redirected || !answer.ok) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement?.dataset?.row !== undefined ? document.activeElement.getAttribute("href") : null;
    const known = new Set(rows().map((a) => a.getAttribute("href")));
    const place = one("[data-live]"), next = one("[data-live]", fresh);
    if (!place || !next) { location.reload(); return; }
    place.replaceChildren(...next.childNodes);
    const nav = one(".bar nav"), freshNav = one(".bar nav", fresh);
    if (nav && freshNav && !nav.contains(document.activeElement)) nav.replaceChildren(...freshNav.childNodes);
    document.title = fresh.title;
    for (const a of rows()) {
      if (!known.has(a.getAttribute("href"))) a.classList.add("fresh");
      if (a.getAttribute("href") === focused) a.focus({ preventScroll: true });
    }
    place.dataset.live = next.dataset.live;
    tick();
  };
  let planned = 0;
  const changed = () => {
    clearTimeout(planned);
    planned = setTimeout(() => {
      if (busy()) { changed(); return; } // a list that moves under a finger would open something else
      if (request) {
        if (dirty()) tell("Somebody answered meanwhile.", { href: location.href, text: "Show" });
        else location.reload();
      } else renew().catch(() => setTimeout(changed, 2000));
    }, 120);
  };

  // The page says what it shows; asking for the same again tells whether it is old, whatever was missed meanwhile.
  const shows = () => request ? `${body.dataset.state} ${body.dataset.answers}` : live.dataset.live;
  const check = async () => {
    const answer = await fetch(`/console/fingerprint${request ? `?request=${encodeURIComponent(request)}` : ""}`, { cache: "no-store" });
    if (answer.status === 401) location.reload();
    else if (answer.ok && await answer.text() !== shows()) changed();
  };
  let source = null, polling = 0;
  const poll = () => {
    clearTimeout(polling);
    polling = setTimeout(() => { check().catch(() => {}).finally(() => { if (!source) poll(); }); }, 2000);
  };
  const listen = () => {
    if (!("EventSource" in window)) { poll(); return; }
    source = new EventSource("/console/events");
    source.addEventListener("open", () => { check().catch(() => {}); });
    source.addEventListener("change", (event) => {
      const change = JSON.parse(event.data);
      if (!request) changed();
      else if (change.id === request && `${change.state} ${change.answers}` !== shows()) changed();
    });
    source.addEventListener("error", () => { if (source?.readyState === EventSource.CLOSED) { source = null; poll(); } });
  };
  // A browser has six connections to a host: a tab that nobody sees gives its own back.
  const leave = () => { source?.close(); source = null; clearTimeout(polling); };
  document.addEventListener("visibilitychange", () => { if (document.hidden) leave(); else if (!source) listen(); });
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
  listen();
})();
