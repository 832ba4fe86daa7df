"""The domain of the city's MQTT sensors: traffic counters, air quality, noise, temperature, humidity, utilities."""
