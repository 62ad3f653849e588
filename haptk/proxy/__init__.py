"""The control plane of the sticky path: configuration to tables, health checks, start and stop, and the slow reference of the data path."""
