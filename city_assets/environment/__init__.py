"""City sensors over MQTT: traffic counters, air quality, noise, temperature, humidity, utilities."""
