// Passkeys: registering one, and signing an answer. Without this script nothing is signed, and denying works as ever.
"use strict";
(() => {
  const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => {
    let binary = "";
    for (const byte of new Uint8Array(buffer)) binary += String.fromCharCode(byte);
    return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  };
  const known = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  // Browsers since 2024 read our JSON themselves (WebAuthn Level 3, §5.1.8); for the others there is the long way.
  const creation = (plain) => PublicKeyCredential.parseCreationOptionsFromJSON
    ? PublicKeyCredential.parseCreationOptionsFromJSON(plain)
    : { ...plain, challenge: bytes(plain.challenge), user: { ...plain.user, id: bytes(plain.user.id) }, excludeCredentials: known(plain.excludeCredentials) };
  const request = (plain) => PublicKeyCredential.parseRequestOptionsFromJSON
    ? PublicKeyCredential.parseRequestOptionsFromJSON(plain)
    : { ...plain, challenge: bytes(plain.challenge), allowCredentials: known(plain.allowCredentials) };

  const ask = async (path, fields) => {
    const answer = await fetch(path, { method: "POST", body: new URLSearchParams(fields), headers: { Accept: "application/json" } });
    const plain = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(plain.detail || `The proxy answered ${answer.status}.`);
    return plain;
  };

  const words = (error) => ({
    NotAllowedError: "The passkey was not used. Try again when you are ready.",
    InvalidStateError: "This authenticator has a passkey for you already.",
    SecurityError: "This page is not at the address that your passkeys belong to. Open the console by its public address.",
  })[error.name] || error.message;

  const forms = [...document.querySelectorAll("form[data-sign], form[data-enroll]")];
  const place = (form) => form.querySelector("[data-signing]") || document.querySelector("[data-signing]");
  const say = (form, message) => { const p = place(form); if (p) { p.textContent = message; p.hidden = !message; } };
  const value = (form, name) => form.elements[name]?.value || "";

  const enroll = async (form) => {
    const options = await ask("/console/passkeys/options", { csrf: value(form, "csrf"), passphrase: value(form, "passphrase") });
    const made = await navigator.credentials.create({ publicKey: creation(options) });
    form.elements.credential.value = JSON.stringify({
      id: made.id, rawId: text(made.rawId), type: made.type,
      response: { clientDataJSON: text(made.response.clientDataJSON), attestationObject: text(made.response.attestationObject) },
    });
  };

  // What is signed is the answer as it stands in the form: this request, approve, once (or that the glass is broken for it).
  const sign = async (form) => {
    const options = await ask(`/console/approvals/${encodeURIComponent(form.dataset.sign)}/challenge`, {
      csrf: value(form, "csrf"), digest: value(form, "digest"), verdict: "approve", scope: form.dataset.scope || "once",
    });
    const made = await navigator.credentials.get({ publicKey: request(options) });
    form.elements.signed.value = JSON.stringify({
      kind: "webauthn", id: made.id, client_data: text(made.response.clientDataJSON),
      authenticator_data: text(made.response.authenticatorData), signature: text(made.response.signature),
    });
  };

  const can = window.isSecureContext && "PublicKeyCredential" in window;
  for (const form of forms) {
    const filled = form.elements[form.dataset.sign ? "signed" : "credential"];
    if (!filled) continue;
    if (!can) { say(form, "This browser or address knows no passkeys. Use the console's public https address."); continue; }
    for (const button of document.querySelectorAll("[data-signs]")) if (button.form === form) button.disabled = false;
    if (form.hasAttribute("data-enroll")) say(form, "");
    let busy = false, sent = false;
    form.addEventListener("submit", async (event) => {
      const button = event.submitter;
      if (sent) { event.preventDefault(); return; } // the signed form is on its way: once is enough
      if (form.dataset.sign && (form.dataset.verdict || button?.value) !== "approve") { filled.value = ""; return; }
      if (event.defaultPrevented) return;
      if (filled.value) { sent = true; return; }
      event.preventDefault();
      if (busy) return;
      busy = true;
      say(form, "Your device asks whether it is you…");
      try {
        await (form.dataset.sign ? sign(form) : enroll(form));
        say(form, "");
        form.requestSubmit(button);
      } catch (error) {
        filled.value = "";
        say(form, words(error));
      } finally {
        busy = false;
      }
    });
  }
})();
