// Keeps an open page honest when its server is not there any more, or does not know it any more.
// Streamlit's own page would go on showing the last states, in green, under words about CORS.
(() => {
  if (window.atollWatch) return;
  const EVERY = 1000, QUIET = 5000, UNKNOWN = 15000;
  let words = '', changed = Date.now(), gone = 0;

  const strip = () => document.querySelector('[role=status][aria-label="Fleet status"]');

  function say(text) {
    let box = document.getElementById('at-watch');
    if (!text) { if (box) box.remove(); return; }
    if (!box) {
      box = document.createElement('div');
      box.id = 'at-watch';
      box.setAttribute('role', 'alert');
      box.className = 'at-alert at-down';
      document.body.append(box);
    }
    if (box.textContent !== text) box.textContent = text;
  }

  function unknown() {
    for (const badge of document.querySelectorAll('.at-badge[role=img]')) {
      badge.setAttribute('aria-label', badge.getAttribute('aria-label').replace(/: .*$/, ': unknown'));
      badge.className = 'at-badge at-unknown';
      badge.textContent = '? unknown';
    }
  }

  async function ask() {
    try {
      const answer = await fetch('/atoll/session.json', { cache: 'no-store', signal: AbortSignal.timeout(3000) });
      if (answer.status === 403) {
        location.replace('/login?next=' + encodeURIComponent(location.pathname + location.search));
        return;
      }
      if (gone && answer.ok) { location.reload(); return; } // what was marked unknown is drawn anew
    } catch {
      gone = gone || changed;
      document.documentElement.classList.add('at-gone');
      say('The dashboard does not answer. What is shown was so at ' + new Date(gone).toLocaleTimeString() + '.');
      if (Date.now() - gone > UNKNOWN) unknown();
    }
  }

  window.atollWatch = (async () => {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, EVERY));
      const now = strip() ? strip().innerText : '';
      if (now !== words && !gone) { words = now; changed = Date.now(); }
      if (gone || Date.now() - changed > QUIET) await ask();
    }
  })();
})();
