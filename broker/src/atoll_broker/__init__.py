"""Durable, authenticated publish/subscribe broker on one ZeroMQ ROUTER. Clients' tests use `atoll_broker.testing`."""
