// Charts across the cases of a run.

const OUTCOME_MARKS = { pass: 'circle', 'slo missed': 'path://M-5,-4L-4,-5L0,-1L4,-5L5,-4L1,0L5,4L4,5L0,1L-4,5L-5,4L-1,0Z', regressed: 'triangle', invalid: 'emptyDiamond' };

function groups(points) {
  return [...new Set(points.map((point) => point.group))];
}

function mark(point) {
  return OUTCOME_MARKS[point.verdict] || 'emptyCircle';
}

function label(point) {
  return { show: true, formatter: point.load, position: 'top', fontSize: 11, distance: 4 };
}

function knee(data, colours) {
  const points = data.points.filter((point) => point.rate > 0 && (point.p50 > 0 || point.p99 > 0));
  const bounds = logBounds(points.flatMap((point) => [point.p50, point.p99]));
  if (!bounds) return null;
  const series = [];
  groups(points).forEach((group, nth) => {
    const own = points.filter((point) => point.group === group).sort((one, other) => one.rate - other.rate);
    const colour = colours[COLOURS[nth % 6]];
    for (const [statistic, width] of [['p50', 1.2], ['p99', 2.4]]) {
      // Only what came at a rate lies on one line: users wait for answers, and a burst has no rate.
      const kinds = [...new Set(own.map((point) => point.kind))];
      for (const kind of kinds) {
        series.push({
          name: `${group} ${statistic}`,
          type: 'line',
          data: own.filter((point) => point.kind === kind && point[statistic] > 0).map((point) => ({
            value: [point.rate, point[statistic]],
            symbol: mark(point),
            label: statistic === 'p99' ? { ...label(point), color: colours.text } : { show: false },
            itemStyle: { color: point.verdict === 'slo missed' || point.verdict === 'regressed' ? colours.bad : colour },
            point,
          })),
          symbolSize: statistic === 'p99' ? 10 : 6,
          lineStyle: { color: colour, width, type: DASHES[nth % 6], opacity: kind === 'at once' ? 0 : 1 },
          itemStyle: { color: colour },
        });
      }
    }
  });
  for (const { group, below, above } of data.knees) {
    const host = series.find((each) => each.name === `${group} p99`);
    const nth = groups(points).indexOf(group);
    if (host && (below !== null || above !== null)) {
      host.markArea = {
        silent: true,
        itemStyle: { color: colours[COLOURS[nth % 6]], opacity: 0.13 },
        label: { color: colours.text, formatter: 'knee', position: 'insideTop' },
        data: [[{ xAxis: below ?? 0 }, { xAxis: above ?? Math.max(...points.map((point) => point.rate)) }]],
      };
    }
  }
  return {
    ...base(colours),
    grid: { left: 60, right: 30, top: 12 + 20 * Math.ceil(groups(points).length), bottom: 44 },
    legend: { ...base(colours).legend, data: groups(points).map((group) => `${group} p99`), formatter: (name) => name.replace(/ p99$/, ': bold p99, thin p50') },
    tooltip: {
      ...base(colours).tooltip,
      formatter: ({ data: { point } }) =>
        `${point.group}@${point.load}: ${point.verdict}\n${shown(point.rate)} requests/s (${point.kind})\nTTFT p50 ${shown(point.p50)} ms, p99 ${shown(point.p99)} ms`,
    },
    xAxis: axis(colours, { type: 'value', min: 0, name: 'requests/s (sent; of users and bursts: completed)', nameGap: 26, axisLabel: { formatter: (value) => shown(value) } }),
    yAxis: logAxis(colours, bounds, { name: 'TTFT, ms', nameGap: 44 }),
    series,
  };
}

function pareto(data, colours) {
  const points = data.points.filter((point) => point.throughput > 0 && point.p99 > 0);
  const bounds = logBounds(points.map((point) => point.p99));
  if (!bounds) return null;
  const names = groups(points);
  const front = points.filter((point) => point.front).sort((one, other) => one.throughput - other.throughput);
  const series = names.map((group, nth) => ({
    name: group,
    type: 'scatter',
    symbolSize: 12,
    itemStyle: { color: colours[COLOURS[nth % 6]] },
    data: points.filter((point) => point.group === group).map((point) => ({
      value: [point.throughput, point.p99],
      symbol: mark(point) === 'circle' ? MARKS[nth % 6] : mark(point),
      label: { ...label(point), color: colours.text },
      itemStyle: { color: point.verdict === 'slo missed' || point.verdict === 'regressed' ? colours.bad : colours[COLOURS[nth % 6]] },
      point,
    })),
    symbol: MARKS[nth % 6],
  }));
  series.push({
    name: 'front',
    type: 'line',
    step: 'end',
    data: front.map((point) => [point.throughput, point.p99]),
    showSymbol: false,
    silent: true,
    lineStyle: { color: colours.quiet, width: 1.5, type: 'dashed' },
    itemStyle: { color: colours.quiet },
    z: 1,
  });
  return {
    ...base(colours),
    grid: { left: 60, right: 40, top: 12 + 20 * Math.ceil((names.length + 1) / 2), bottom: 44 },
    tooltip: {
      ...base(colours).tooltip,
      formatter: ({ data: { point } }) =>
        `${point.group}@${point.load}: ${point.verdict}\n${shown(point.throughput)} output tokens/s\nTTFT p99 ${shown(point.p99)} ms`,
    },
    xAxis: axis(colours, { type: 'value', min: 0, name: 'output tokens/s', nameGap: 26, axisLabel: { formatter: (value) => shown(value) } }),
    yAxis: logAxis(colours, bounds, { name: 'TTFT p99, ms', nameGap: 44 }),
    series,
  };
}
