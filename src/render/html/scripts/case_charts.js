// Charts of one case: how a latency is distributed, and how it was in sessions before.

// The curve of a latency, that of the baseline behind it, the objectives, and below them a histogram.
function distribution(data, colours, element) {
  const of = data.distributions.find((each) => each.name === element.dataset.of);
  if (!of) return null;
  const curve = (values) =>
    values.map((ms, at) => [ms, (100 * at) / (values.length - 1)]).filter(([ms]) => ms > 0);
  const now = curve(of.curve_ms);
  const before = of.before_ms ? curve(of.before_ms) : [];
  const bounds = logBounds([
    ...now.map(([ms]) => ms),
    ...before.map(([ms]) => ms),
    ...of.limits.map((limit) => limit.ms),
  ]);
  if (!bounds) return null;
  const grids = [
    { left: 48, right: 16, top: 26, height: '46%', outerBoundsMode: 'none' },
    { left: 48, right: 16, bottom: 42, height: '22%', outerBoundsMode: 'none' },
  ];
  const lines = of.limits.map((limit) => ({
    xAxis: limit.ms,
    lineStyle: { color: limit.missed ? colours.bad : colours.good, type: 'dashed', width: 2 },
    label: {
      formatter: `${limit.missed ? '✗' : '✓'} ${limit.label}`,
      color: limit.missed ? colours.bad : colours.good,
      position: 'insideEndTop',
      fontWeight: 'bold',
    },
  }));
  const judged = of.limits.filter((limit) => limit.percent !== null);
  const series = [
    {
      name: 'this run',
      type: 'line',
      data: now,
      showSymbol: false,
      lineStyle: { width: 2.5, color: colours.c0 },
      itemStyle: { color: colours.c0 },
      z: 3,
      markLine: { symbol: 'none', silent: true, data: lines },
      markPoint: {
        symbol: 'diamond',
        symbolSize: 11,
        label: { show: false },
        data: judged.map((limit) => ({
          coord: [limit.ms, limit.percent],
          itemStyle: { color: limit.missed ? colours.bad : colours.good },
        })),
      },
    },
  ];
  if (before.length) {
    series.push({
      name: 'baseline',
      type: 'line',
      data: before,
      showSymbol: false,
      lineStyle: { width: 2, color: colours.before, type: 'dashed' },
      itemStyle: { color: colours.before },
      z: 2,
    });
  }
  if (of.bars) {
    const { edges_ms: edges, counts } = of.bars;
    const steps = counts.map((count, at) => [edges[at], count]);
    steps.push([edges[counts.length], counts.at(-1)]);
    series.push({
      name: 'requests',
      type: 'line',
      step: 'end',
      data: [[edges[0], 0], ...steps, [edges[counts.length], 0]],
      xAxisIndex: 1,
      yAxisIndex: 1,
      showSymbol: false,
      lineStyle: { width: 1, color: colours.c0 },
      itemStyle: { color: colours.c0 },
      areaStyle: { color: colours.c0, opacity: 0.35 },
      markLine: {
        symbol: 'none',
        silent: true,
        data: lines.map((line) => ({ ...line, label: { show: false } })),
      },
    });
  }
  return {
    ...base(colours),
    grid: grids,
    legend: { ...base(colours).legend, show: before.length > 0, data: ['this run', 'baseline'] },
    tooltip: {
      ...base(colours).tooltip,
      trigger: 'axis',
      formatter: (points) =>
        points
          .map(({ seriesName, value: [ms, y] }) =>
            seriesName === 'requests'
              ? `${y} requests from ${shown(ms)} ms on`
              : `${seriesName}: ${shown(y)} % within ${shown(ms)} ms`)
          .join('\n'),
    },
    xAxis: [
      logAxis(colours, bounds, { gridIndex: 0 }),
      logAxis(colours, bounds, { gridIndex: 1, name: `${of.title}, ms`, nameGap: 24 }),
    ],
    yAxis: [
      axis(colours, { type: 'value', gridIndex: 0, min: 0, max: 100, axisLabel: { formatter: '{value} %' } }),
      axis(colours, { type: 'value', gridIndex: 1, name: 'requests', nameGap: 32, splitNumber: 2, minInterval: 1 }),
    ],
    series,
  };
}

// A small chart for each metric: its level in each session, and where that changed.
function history(data, colours, element) {
  if (!data.history) return null;
  const { dates } = data.history;
  const metrics = data.history.metrics.filter(({ levels }) => levels.some((level) => level !== null));
  const columns = element.clientWidth < 700 ? 1 : 2;
  const rows = Math.ceil(metrics.length / columns);
  const height = 150;
  element.style.height = `${rows * height + 10}px`;
  const option = { ...base(colours), grid: [], xAxis: [], yAxis: [], series: [], legend: { show: false } };
  option.tooltip = { ...option.tooltip, trigger: 'axis' };
  metrics.forEach(({ metric, levels, changes }, at) => {
    const colour = colours[COLOURS[0]];
    const width = 100 / columns;
    option.grid.push({
      left: `${(at % columns) * width + (columns === 1 ? 12 : 6)}%`,
      width: `${width - (columns === 1 ? 16 : 9)}%`,
      top: Math.floor(at / columns) * height + 30,
      height: height - 62,
      outerBoundsMode: 'none',
    });
    option.xAxis.push(axis(colours, { type: 'category', gridIndex: at, data: dates, boundaryGap: true, axisLabel: { formatter: (date) => date.slice(0, 10) } }));
    option.yAxis.push(axis(colours, {
      type: 'value', gridIndex: at, scale: true, splitNumber: 3, axisLabel: { formatter: (value) => shown(value) },
      name: metric + (metric.includes('throughput') ? ', tok/s' : ', ms'),
      nameLocation: 'end', nameTextStyle: { color: colours.text, align: 'left', fontWeight: 'bold' },
    }));
    const place = (since) => (since === 'now' ? dates.length - 1 : Math.max(0, dates.indexOf(since)));
    const ends = [...changes.map((change) => place(change.since)).slice(1), dates.length - 1];
    option.series.push({
      name: metric,
      type: 'line',
      xAxisIndex: at,
      yAxisIndex: at,
      data: levels,
      symbol: 'circle',
      symbolSize: 6,
      lineStyle: { width: 1.5, color: colour },
      itemStyle: { color: colour },
      tooltip: { valueFormatter: shown },
      markLine: {
        symbol: 'none',
        silent: true,
        data: changes.flatMap((change, nth) => {
          const tone = change.worse ? colours.bad : colours.good;
          const level = (y, from, to) => [
            { coord: [from, y], lineStyle: { color: tone, type: 'dotted', width: 2 }, label: { show: false } },
            { coord: [to, y] },
          ];
          const start = nth === 0 ? 0 : place(changes[nth - 1].since);
          return [
            {
              xAxis: place(change.since),
              lineStyle: { color: tone, type: 'dashed', width: 2 },
              label: {
                formatter: `${change.worse ? '✗ worse' : '✓ better'} ${change.percent > 0 ? '+' : ''}${shown(change.percent)} %`,
                color: tone, fontWeight: 'bold', position: 'end',
                align: place(change.since) > dates.length / 2 ? 'right' : 'left',
              },
            },
            level(change.before, start, Math.max(start, place(change.since) - 1)),
            level(change.after, place(change.since), ends[nth]),
          ];
        }),
      },
    });
  });
  return metrics.length ? option : null;
}
