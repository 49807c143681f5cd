// Charts of one case over time.

function row(at_s, values) {
  return at_s.map((at, index) => [at, values[index]]);
}

// Small charts below each other over one time axis.
function timeline(data, colours, element) {
  const { at_s, columns, gpus, servers, steady_s } = data.timeline;
  if (at_s.length === 0) return null;
  const panels = [];
  const line = (name, at, values, nth, more) => ({
    name,
    type: 'line',
    showSymbol: false,
    data: row(at, values),
    lineStyle: { width: 1.8, color: colours[COLOURS[nth % 6]], type: DASHES[nth % 6] },
    itemStyle: { color: colours[COLOURS[nth % 6]] },
    tooltip: { valueFormatter: shown },
    ...more,
  });
  const area = { areaStyle: { color: colours.c0, opacity: 0.18 } };
  panels.push({ name: 'output tok/s', series: [line('output tokens/s', at_s, columns.output_tokens_per_s, 0, area)] });
  panels.push({ name: 'in flight', series: [line('in flight', at_s, columns.in_flight, 2, { step: 'middle' })] });
  const failed = columns.failed_per_s || [];
  if (failed.some((value) => value > 0)) {
    panels.push({ name: 'failed/s', series: [line('failed/s', at_s, failed, 1, { step: 'middle' })] });
  }
  const queue = servers.flatMap((server, nth) => {
    const named = servers.length > 1 ? `${server.name} ` : '';
    const of = (column, label, colour) =>
      server.columns[column]
        ? [line(`${named}${label}`, server.at_s, server.columns[column], colour + 2 * nth, { step: 'end' })]
        : [];
    return [...of('requests_waiting', 'waiting in the server', 1), ...of('requests_running', 'running', 4)];
  });
  if (queue.length) panels.push({ name: "server's queue", series: queue });
  const cache = servers.flatMap((server, nth) =>
    server.columns.kv_cache_usage
      ? [line(`KV cache, %${servers.length > 1 ? ` ${server.name}` : ''}`, server.at_s, server.columns.kv_cache_usage.map((share) => share === null ? null : 100 * share), nth + 3)]
      : []);
  if (cache.length) panels.push({ name: 'KV cache, %', max: 100, series: cache });
  const busy = gpus.flatMap((gpu, nth) =>
    gpu.columns.utilization_percent
      ? [line(`${gpu.name}, %${gpu.counts ? '' : ' (not counted)'}`, gpu.at_s, gpu.columns.utilization_percent, nth)]
      : []);
  if (busy.length) panels.push({ name: 'GPU, %', max: 100, series: busy });

  const height = 92;
  const gap = 30;
  element.style.height = `${panels.length * (height + gap) + 40}px`;
  const last = Math.max(...[at_s, ...servers.map((it) => it.at_s), ...gpus.map((it) => it.at_s)].map((it) => it.at(-1) ?? 0));
  const option = { ...base(colours), grid: [], xAxis: [], yAxis: [], series: [], legend: [] };
  option.tooltip = {
    ...option.tooltip,
    trigger: 'axis',
    formatter: (points) => {
      const inOrder = [...points].sort((one, other) => one.seriesIndex - other.seriesIndex);
      const lines = inOrder.map(({ seriesName, value: [, y] }) => `${seriesName}: ${shown(y)}`);
      return [`at ${shown(inOrder[0].value[0])} s`, ...lines].join('\n');
    },
  };
  option.axisPointer = { link: [{ xAxisIndex: 'all' }] };
  panels.forEach((panel, at) => {
    const top = at * (height + gap) + 24;
    const bottom = at === panels.length - 1;
    option.grid.push({ left: 74, right: 18, top, height, outerBoundsMode: 'none' });
    option.xAxis.push(axis(colours, {
      type: 'value', gridIndex: at, min: 0, max: last, name: bottom ? 'time, s' : undefined, nameGap: 22,
      axisLabel: { show: bottom, showMaxLabel: false, formatter: (value) => shown(value) },
      splitLine: { show: false },
    }));
    option.yAxis.push(axis(colours, {
      type: 'value', gridIndex: at, min: 0, max: panel.max, splitNumber: 2, name: panel.name, nameGap: 54,
      axisLabel: { formatter: (value) => shown(value) },
    }));
    if (panel.series.length > 1) {
      option.legend.push({ ...base(colours).legend, top: top - 22, left: 74, data: panel.series.map((it) => it.name) });
    }
    panel.series.forEach((series, nth) => {
      const shade = nth === 0 && steady_s
        ? { silent: true, itemStyle: { color: colours.quiet, opacity: 0.09 }, data: [[{ xAxis: steady_s[0] }, { xAxis: steady_s[1] }]] }
        : undefined;
      // Dashes tell lines of one panel apart.
      const lineStyle = { ...series.lineStyle, type: panel.series.length > 1 ? series.lineStyle.type : 'solid' };
      option.series.push({ ...series, lineStyle, xAxisIndex: at, yAxisIndex: at, markArea: shade });
    });
  });
  return option;
}

// One bar per request: due, sent, first token, end.
function waterfall(data, colours) {
  const { of, scheduled_s, sent_s, first_token_s, ended_s, failure } = data.waterfall;
  if (sent_s.length === 0) return null;
  const items = sent_s.map((sent, at) => [
    Math.min(scheduled_s[at], sent), sent, first_token_s[at] ?? ended_s[at], ended_s[at], at,
  ]);
  const draw = (params, api) => {
    const place = api.value(4);
    const at = (value) => api.coord([value, place]);
    const size = Math.max(1, api.size([0, 1])[1] * 0.8);
    const bad = failure[place] !== null;
    const bar = (from, to, height, style) => {
      const [x, y] = at(from);
      return {
        type: 'rect',
        shape: { x, y: y - height / 2, width: Math.max(0.6, at(to)[0] - x), height },
        style,
      };
    };
    const children = [
      bar(api.value(1), api.value(2), size, { fill: bad ? colours.bad : colours.wait }),
    ];
    if (!bad) children.push(bar(api.value(2), api.value(3), size, { fill: colours.c0 }));
    if (api.value(0) < api.value(1)) {
      children.push(bar(api.value(0), api.value(1), Math.min(size, Math.max(1, size / 4)), { fill: colours.quiet }));
    }
    if (bad) {
      const [x, y] = at(api.value(3));
      children.push({
        type: 'text',
        style: { text: '×', x: x + 2, y, fill: colours.bad, font: 'bold 13px sans-serif', verticalAlign: 'middle' },
      });
    }
    return { type: 'group', children };
  };
  return {
    ...base(colours),
    grid: { left: 52, right: 18, top: 12, bottom: 42, outerBoundsMode: 'none' },
    tooltip: {
      ...base(colours).tooltip,
      formatter: ({ value: [due, sent, first, ended, at] }) =>
        [
          `request ${at + 1} of those shown`,
          `due ${shown(due)} s, sent ${shown(sent)} s`,
          first_token_s[at] === null ? 'no output' : `first token after ${shown(1000 * (first - sent))} ms`,
          `ended after ${shown(1000 * (ended - sent))} ms`,
          failure[at] === null ? '' : `failed: ${failure[at]}`,
        ].filter(Boolean).join('\n'),
    },
    xAxis: axis(colours, { type: 'value', min: 0, max: Math.max(...ended_s) * 1.03, name: 'time, s', nameGap: 24, axisLabel: { showMaxLabel: false, formatter: (value) => shown(value) } }),
    yAxis: axis(colours, {
      type: 'value', inverse: true, min: -0.5, max: items.length - 0.5, nameGap: 36,
      name: of === items.length ? 'requests as sent' : `${items.length} of ${of} requests`,
      axisLabel: { formatter: (value) => (value < 0 || value % 1 ? '' : String(value + 1)) },
      splitLine: { show: false },
    }),
    series: [{ type: 'custom', renderItem: draw, data: items, encode: { x: [0, 3], y: 4 }, clip: true }],
  };
}

// How many gaps of which length there were at a time.
function heat(data, colours) {
  if (!data.heat) return null;
  const { time_edges_s: times, gap_edges_ms: gaps, counts } = data.heat;
  const cells = counts.flatMap((column, x) =>
    column.flatMap((count, y) => (count > 0 ? [[x, y, Math.log10(count), count]] : [])));
  const short = (edge) => String(Number(edge.toPrecision(2)));
  const most = Math.max(...cells.map((cell) => cell[3]));
  return {
    ...base(colours),
    grid: { left: 60, right: 18, top: 12, bottom: 84, outerBoundsMode: 'none' },
    tooltip: {
      ...base(colours).tooltip,
      formatter: ({ value: [x, y, , count] }) =>
        `${count} gaps of ${shown(gaps[y])} to ${shown(gaps[y + 1])} ms\nfrom ${shown(times[x])} to ${shown(times[x + 1])} s`,
    },
    visualMap: {
      type: 'continuous', min: 0, max: Math.max(Math.log10(most), 0.01), dimension: 2, orient: 'horizontal',
      left: 'center', bottom: 0, itemHeight: 160, itemWidth: 12, text: [`${most} gaps`, '1 gap'],
      textStyle: { color: colours.quiet }, inRange: { color: [colours.heat0, colours.heat1, colours.heat2] },
      calculable: false, hoverLink: false,
    },
    xAxis: axis(colours, { type: 'category', data: times.slice(0, -1).map(short), name: 'time, s', nameGap: 24, splitLine: { show: false } }),
    yAxis: axis(colours, { type: 'category', data: gaps.slice(0, -1).map(short), name: 'gap, ms', nameGap: 44, splitLine: { show: false }, axisLabel: { interval: Math.ceil(gaps.length / 8) - 1 } }),
    series: [{ type: 'heatmap', data: cells, progressive: 0, itemStyle: { borderWidth: 0 } }],
  };
}
