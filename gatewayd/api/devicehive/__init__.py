"""DeviceHive: WebSocket and the REST that WebSocket clients need."""
