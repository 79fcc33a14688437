"""HTTP API: routes, middleware and metrics."""
