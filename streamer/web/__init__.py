"""What the service answers over HTTP: health and metrics, on loopback unless told otherwise."""
