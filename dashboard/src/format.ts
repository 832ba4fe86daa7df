// Numbers and times as text.

/** A number with at most `digits` decimals, or a dash for a missing value. */
export const formatNumber = (value: number | null | undefined, digits = 0): string =>
  value === null || value === undefined || Number.isNaN(value)
    ? '–'
    : value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: 0 });

/** The time of day of a timestamp (ms since the epoch). */
export const formatTime = (ms: number, timezone: string, seconds = false): string =>
  new Intl.DateTimeFormat('en-GB', {
    timeZone: timezone,
    hour: '2-digit',
    minute: '2-digit',
    ...(seconds ? { second: '2-digit' } : {}),
  }).format(ms);

/** The date and time of a timestamp (ms since the epoch, or ISO 8601). */
export const formatDateTime = (value: string | number, timezone: string): string =>
  new Intl.DateTimeFormat('en-GB', { timeZone: timezone, dateStyle: 'medium', timeStyle: 'short' }).format(
    new Date(value),
  );
