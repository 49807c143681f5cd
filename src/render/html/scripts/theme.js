'use strict';
// The colours of the page's styles, and what all charts have in common.

const COLOURS = ['c0', 'c1', 'c2', 'c3', 'c4', 'c5'];
const DASHES = ['solid', 'dashed', 'dotted', [8, 3, 2, 3], [2, 6], [12, 4]];
const MARKS = ['circle', 'rect', 'triangle', 'diamond', 'pin', 'arrow'];

function theme() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${String(name)}`).trim() });
}

// A number for people: four digits are enough to point at.
function shown(value) {
  if (value === null || value === undefined) return 'n/a';
  const size = Math.abs(value);
  if (size !== 0 && size < 0.01) return value.toPrecision(2);
  return String(Number(value.toPrecision(size < 10000 ? 4 : 6)));
}

function base(colours) {
  const text = { color: colours.text, fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12 };
  return {
    animation: false,
    backgroundColor: 'transparent',
    textStyle: text,
    tooltip: {
      // Drawn, not written as HTML: names in it stay text.
      renderMode: 'richText',
      confine: true,
      backgroundColor: colours.card,
      borderColor: colours.line,
      textStyle: text,
    },
    legend: {
      top: 0,
      left: 0,
      itemWidth: 26,
      itemHeight: 10,
      textStyle: { ...text, color: colours.text },
      inactiveColor: colours.quiet,
    },
  };
}

function axis(colours, more) {
  const { name, ...rest } = more;
  return {
    name,
    nameLocation: 'middle',
    nameTextStyle: { color: colours.quiet },
    axisLine: { show: true, lineStyle: { color: colours.quiet } },
    axisTick: { lineStyle: { color: colours.quiet } },
    axisLabel: { color: colours.quiet, hideOverlap: true, ...(more.axisLabel || {}) },
    splitLine: { lineStyle: { color: colours.grid } },
    minorSplitLine: { show: false },
    ...Object.fromEntries(Object.entries(rest).filter(([key]) => key !== 'axisLabel')),
  };
}

// The bounds of a logarithmic axis: a step of 1, 2 or 5 around the values.
function logBounds(values) {
  const good = values.filter((value) => value > 0);
  if (good.length === 0) return null;
  const steps = [1, 2, 5, 10];
  const low = Math.min(...good);
  const high = Math.max(...good);
  const below = 10 ** Math.floor(Math.log10(low));
  const above = 10 ** Math.floor(Math.log10(high));
  const min = below * steps.filter((step) => below * step <= low * 1.0001).at(-1);
  let max = above * steps.find((step) => high <= above * step * 1.0001);
  if (max <= min) max = min * 2;
  return { min, max };
}

function logAxis(colours, bounds, more) {
  return axis(colours, {
    type: 'log',
    min: bounds.min,
    max: bounds.max,
    ...more,
    axisLabel: { formatter: (value) => shown(value), showMinLabel: true, showMaxLabel: true },
  });
}
