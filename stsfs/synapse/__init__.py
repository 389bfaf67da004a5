"""The few calls of the Synapse REST API that a mount needs."""
