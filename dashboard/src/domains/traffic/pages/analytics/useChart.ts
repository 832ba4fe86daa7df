import { type RefObject } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { formatDateTime, formatTime } from '../../../../format';
import { numberLabels, timeLabels, timeSteps } from './axis';
import type { ChartData } from './series';

const HEIGHT = 260;
const TICK_DISTANCE = 60;
const DAY = 86_400;

/** Draws both lines of a chart into an element, as wide as the element. */
export function useChart(data: ChartData, unit: string, timezone: string): RefObject<HTMLDivElement | null> {
  const container = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const { current: element } = container;
    if (!element) return;
    const options = chartOptions(data, unit, timezone, element.clientWidth);
    const chart = new uPlot(options, [data.times, data.current, data.weekBefore] as uPlot.AlignedData, element);
    const resize = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height: HEIGHT }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      chart.destroy();
    };
  }, [data, timezone, unit]);
  return container;
}

function chartOptions({ times }: ChartData, unit: string, timezone: string, width: number): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue('--ink');
  const grid = { stroke: style.getPropertyValue('--line'), width: 1 };
  const isLong = times.at(-1)! - times[0]! > DAY;
  const timeText = (t: number) => (isLong ? formatDateTime(t * 1000, timezone) : formatTime(t * 1000, timezone));
  return {
    width,
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), timezone),
    series: [
      { value: (_, t) => (t ? timeText(t) : '') },
      { label: 'now', stroke: style.getPropertyValue('--accent'), width: 2 },
      { label: 'the week before', stroke: ink, dash: [6, 6], width: 1.5 },
    ],
    axes: [
      {
        stroke: ink,
        grid,
        space: TICK_DISTANCE,
        incrs: (_, __, min, max) => timeSteps(max - min),
        values: (_, ticks) => timeLabels(ticks, timezone),
      },
      { stroke: ink, grid, label: unit, values: (_, ticks) => numberLabels(ticks) },
    ],
  };
}
