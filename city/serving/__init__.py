"""The server: predictions and their routing, the city's own API, live updates by WebSocket, metrics, the dashboard."""
