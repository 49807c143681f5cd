// Draws each chart when it comes into view, and all of them for the printer.

const CHARTS = { distribution, history, timeline, waterfall, heat, knee, pareto };
// Widths on paper, px: before the browser has laid it out, nobody knows them.
const PRINTED = { wide: 985, half: 482, third: 314 };

const drawn = new Map();
const read = new Map();

function dataOf(element) {
  const id = element.dataset.caseIndex === undefined ? 'run-data' : `data-${element.dataset.caseIndex}`;
  if (!read.has(id)) read.set(id, JSON.parse(document.getElementById(id).textContent));
  return read.get(id);
}

function draw(element, width) {
  const option = CHARTS[element.dataset.chart](dataOf(element), theme(), element);
  drawn.get(element)?.dispose();
  drawn.delete(element);
  if (!option) {
    element.classList.add('empty');
    element.textContent = 'Nothing was measured that could be drawn here.';
    return;
  }
  const chart = echarts.init(element, null, { renderer: 'svg', width });
  chart.setOption(option);
  drawn.set(element, chart);
}

function printedWidth(element) {
  const figure = element.closest('figure');
  if (figure.classList.contains('wide')) return PRINTED.wide;
  if (figure.classList.contains('half') || figure.closest('.charts.two')) return PRINTED.half;
  return PRINTED.third;
}

const elements = [...document.querySelectorAll('.chart')];
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) {
      seen.unobserve(target);
      draw(target);
    }
  }
}, { rootMargin: '800px' });
elements.forEach((element) => seen.observe(element));

let resizing;
addEventListener('resize', () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => drawn.forEach((_, element) => draw(element)), 150);
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  [...drawn.keys()].forEach((element) => draw(element));
});

addEventListener('beforeprint', () => {
  document.documentElement.dataset.theme = 'light';
  elements.forEach((element) => draw(element, printedWidth(element)));
});
addEventListener('afterprint', () => {
  delete document.documentElement.dataset.theme;
  [...drawn.keys()].forEach((element) => draw(element));
});
