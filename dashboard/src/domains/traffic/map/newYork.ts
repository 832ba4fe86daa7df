// New York: where the map opens, and the names on it.

export interface Place {
  name: string;
  position: [longitude: number, latitude: number];
}

export const CENTRE: [longitude: number, latitude: number] = [-73.975, 40.752];

export const PLACES: Place[] = [
  { name: 'Manhattan', position: [-73.972, 40.777] },
  { name: 'Brooklyn', position: [-73.95, 40.667] },
  { name: 'Queens', position: [-73.87, 40.735] },
  { name: 'The Bronx', position: [-73.87, 40.84] },
  { name: 'Staten Island', position: [-74.15, 40.58] },
  { name: 'Jersey City', position: [-74.065, 40.715] },
  { name: 'Newark', position: [-74.172, 40.735] },
];
