// Responses that several pages use, under the names that the pages have for them.

export type {
  AlarmResponse as Alarm,
  AlarmsResponse,
  ConfigResponse as Config,
  StatsResponse as Stats,
} from './generated';
