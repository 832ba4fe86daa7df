"""The simulated city that all simulators share: chance, local time, weather, streets, traffic, and where people are.

Everything here is a function of times and places on arrays, and of the seed. The same moment has the same weather and
the same traffic for each simulator, in the live city and in its history.
"""
