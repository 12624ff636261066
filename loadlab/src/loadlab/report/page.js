// One cursor over all charts of the time axis; the values of the nearest second are shown next to the names of the lines.
const data = JSON.parse(document.getElementById("curves").textContent);
const charts = [...document.querySelectorAll("svg.time")];
const word = (value) => (value === null || value === undefined ? "" : " " + Number(value.toPrecision(3)).toLocaleString("en"));
function show(at) {
  for (const chart of charts) {
    const cursor = chart.querySelector(".cursor");
    cursor.style.visibility = at === null ? "hidden" : "visible";
    const x = at === null ? 0 : data.left + (data.width * at) / data.span;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    chart.querySelectorAll(".value").forEach((place, n) => {
      const points = data.lines[chart.dataset.name][n];
      const nearest = at === null || !points.length ? null : points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      place.textContent = nearest ? word(nearest[1]) : "";
    });
  }
}
for (const chart of charts) {
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * data.viewbox;
    show(Math.min(Math.max(((x - data.left) / data.width) * data.span, 0), data.span));
  });
  chart.addEventListener("pointerleave", () => show(null));
}
