// Puts the focus on Cancel when a dialog opens, unless somebody is typing already.
(() => {
  const free = () => !document.activeElement || !document.activeElement.matches('input, textarea, button');
  const cancel = () =>
    [...document.querySelectorAll('[role=dialog] button')].find((one) => one.innerText.trim() === 'Cancel');
  let tries = 0;
  const timer = setInterval(() => {
    const button = cancel();
    if (button && free()) button.focus();
    if ((button && !free()) || ++tries > 80) clearInterval(timer);
  }, 25);
})();
