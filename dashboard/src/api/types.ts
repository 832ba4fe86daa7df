// Responses that several pages use. A response that only one page uses is declared in that page's folder.

export interface Config {
  wants_key: boolean;
  map_style: string | null;
  timezone: string;
}

export interface Columnar<Row extends unknown[]> {
  columns: string[];
  rows: Row[];
}

export interface Stats {
  events_per_second: number | null;
  lag: number | null;
  p95_ms: number | null;
  events: number;
  quarantined: number;
  live: Record<string, number>;
  predictions: number;
  models_serving: number;
  clients: number;
  up_seconds: number;
}

export interface Alarm {
  id: number;
  severity: string;
  title: string;
  state: string;
  active: boolean;
  acknowledged: boolean;
  flapping: boolean;
  silenced: boolean;
  assignee: string | null;
  count: number;
  first_at: string;
}

export interface AlarmsResponse {
  alarms: Alarm[];
}
