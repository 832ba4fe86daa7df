import type { CellTraffic } from '../../map/cells';
import { css, FASTEST_KMH, LEVEL_COLOURS, LEVEL_NAMES, LEVELS, speedColour, UNKNOWN_COLOUR } from '../../map/colours';

const RAMP = [0, 12, 24, 36, 48, 60].map((speed) => css(speedColour(speed))).join();

/** The colours, with the number of cells of each level. */
export function Legend({ cells }: { cells: CellTraffic[] }) {
  const count = (level: CellTraffic['level']) => cells.filter((cell) => cell.level === level).length;
  return (
    <>
      <ul class="legend" aria-label="Legend">
        {LEVELS.map((level) => (
          <li key={level}>
            <i style={{ background: css(LEVEL_COLOURS[level]) }} />
            {LEVEL_NAMES[level]}: {count(level)} cells
          </li>
        ))}
        <li>
          <i style={{ background: css(UNKNOWN_COLOUR) }} />
          not known: {count(null)}
        </li>
        <li class="scale" aria-label={`Colour of vehicles by speed, 0 to ${FASTEST_KMH} kilometres per hour`}>
          <span>0</span>
          <i class="ramp" style={{ background: `linear-gradient(90deg, ${RAMP})` }} />
          <span>{FASTEST_KMH} km/h</span>
        </li>
      </ul>
      <p class="note">Height: vehicles in a cell. Colour: their mean speed.</p>
    </>
  );
}
