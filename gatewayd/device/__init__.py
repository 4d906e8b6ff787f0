"""How a request reaches a device: one adapter for each way."""
