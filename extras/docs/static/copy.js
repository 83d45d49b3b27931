// Copy buttons. They stay hidden where there is no JavaScript, or no clipboard, as on
// http:// pages of any host but localhost.
const status = document.getElementById("copied");

async function copy(button) {
  const label = button.firstChild;
  const source = document.getElementById(button.dataset.of);
  await navigator.clipboard.writeText(source.textContent);
  label.data = "Copied";
  status.textContent = "Copied";
  setTimeout(() => {
    label.data = "Copy";
    status.textContent = "";
  }, 1500);
}

if (navigator.clipboard) {
  for (const button of document.querySelectorAll(".copier")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
}
