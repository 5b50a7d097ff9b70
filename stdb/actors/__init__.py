"""The owners of running state: databases, the host that runs them, the clients attached to them."""
