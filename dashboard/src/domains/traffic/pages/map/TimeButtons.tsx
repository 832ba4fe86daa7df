import { MINUTES_AHEAD, type MinutesAhead } from '../../map/cells';

interface TimeButtonsProps {
  selected: MinutesAhead;
  onSelect: (minutes: MinutesAhead) => void;
  disabled: boolean;
}

/** Chooses between the traffic of now and a prediction. */
export function TimeButtons({ selected, onSelect, disabled }: TimeButtonsProps) {
  return (
    <div class="row" role="group" aria-label="Time shown">
      {MINUTES_AHEAD.map((minutes) => (
        <button
          key={minutes}
          type="button"
          aria-pressed={selected === minutes}
          disabled={disabled}
          onClick={() => onSelect(minutes)}
        >
          {minutes === 0 ? 'Now' : `+${minutes} min`}
        </button>
      ))}
    </div>
  );
}
