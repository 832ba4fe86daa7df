"""The monitoring of every domain: data quality, drift, and the findings that become alarms."""
