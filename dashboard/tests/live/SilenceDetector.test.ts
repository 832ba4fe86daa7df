import { describe, expect, it } from 'vitest';
import { SilenceDetector } from '../../src/live/SilenceDetector';

describe('SilenceDetector', () => {
  it('reports a connection that delivers nothing for more than six seconds', () => {
    const detector = new SilenceDetector();
    detector.received(0);
    const silent = [1, 2, 3, 4, 5, 6, 7, 8].map((second) => detector.check(second * 1_000));
    expect(silent).toEqual([false, false, false, false, false, false, false, true]);
  });

  it('does not report a page that was busy, whose messages come after its timer', () => {
    const detector = new SilenceDetector();
    detector.received(0);
    expect(detector.check(20_000)).toBe(false);
    detector.received(20_001);
    expect(detector.check(21_000)).toBe(false);
    expect(detector.check(22_000)).toBe(false);
  });
});
