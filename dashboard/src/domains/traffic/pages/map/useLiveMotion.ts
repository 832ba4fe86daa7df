import { useEffect, useState } from 'preact/hooks';
import { live } from '../../../../live/LiveConnection';
import { Motion } from '../../map/motion';
import { reportAll, reportMessage } from '../../map/vehicles';

/** The motion of the live vehicles. It goes on during playback. */
export function useLiveMotion(): Motion {
  const [motion] = useState(() => new Motion());
  useEffect(() => {
    reportAll(motion, live.data);
    return live.onMessage((message) => reportMessage(motion, message));
  }, [motion]);
  return motion;
}
