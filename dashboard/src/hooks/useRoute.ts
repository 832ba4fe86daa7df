import { useEffect, useState } from 'preact/hooks';

const currentRoute = () => location.hash || '#/';

/** The page that the address names, such as `#/map`. */
export function useRoute(): string {
  const [route, setRoute] = useState(currentRoute);
  useEffect(() => {
    const update = () => setRoute(currentRoute());
    window.addEventListener('hashchange', update);
    return () => window.removeEventListener('hashchange', update);
  }, []);
  return route;
}
