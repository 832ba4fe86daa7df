import { formatNumber } from '../../../../format';

interface VehicleToggleProps {
  checked: boolean;
  onChange: (checked: boolean) => void;
  count: number;
}

export function VehicleToggle({ checked, onChange, count }: VehicleToggleProps) {
  return (
    <label class="check">
      <input type="checkbox" checked={checked} onChange={() => onChange(!checked)} /> Vehicles ({formatNumber(count)})
    </label>
  );
}
