"""What watches every domain: quality, and the alarms that follow from what goes wrong."""
