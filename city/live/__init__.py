"""The live city: topics read into layers, and pushed to WebSocket clients."""
