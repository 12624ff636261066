// One cursor over all charts of the time axis; the values of the nearest second are shown next to the names of the lines.
const data = JSON.parse(document.getElementById("curves").textContent);
const word = (value) => (value === null || value === undefined ? "" : " " + Number(value.toPrecision(3)).toLocaleString("en"));
const charts = [...document.querySelectorAll("svg.time")].map((svg) => {
  const [left, top, width, height] = ["x", "y", "width", "height"].map((name) => Number(svg.querySelector("clipPath rect").getAttribute(name)));
  const cursor = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "line"));
  for (const [name, value] of Object.entries({ class: "cursor", y1: top, y2: top + height })) cursor.setAttribute(name, value);
  const keys = [...svg.querySelectorAll(".key text")].map((place) => ({ place, name: place.textContent }));
  return { svg, cursor, keys, left, width, lines: data.lines[svg.dataset.name] };
});
function show(at) {
  for (const { cursor, keys, left, width, lines } of charts) {
    cursor.style.visibility = at === null ? "hidden" : "visible";
    const x = at === null ? 0 : left + (width * at) / data.span;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    keys.forEach(({ place, name }, n) => {
      const points = lines[n];
      const nearest = at === null || !points.length ? null : points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      place.textContent = nearest ? name + word(nearest[1]) : name;
    });
  }
}
for (const { svg, left, width } of charts) {
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    show(Math.min(Math.max(((x - left) / width) * data.span, 0), data.span));
  });
  svg.addEventListener("pointerleave", () => show(null));
}
