// Copy buttons: hidden where there is no JavaScript, or no clipboard (http:// but for localhost).
const said = document.getElementById("said");
for (const button of document.querySelectorAll(".copier")) {
  if (!navigator.clipboard) break;
  const label = button.firstChild, was = label.data;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.of).textContent);
    label.data = said.textContent = "Copied";
    setTimeout(() => { label.data = was; said.textContent = ""; }, 1500);
  });
}
