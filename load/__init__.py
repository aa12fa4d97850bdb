"""Load: the limit, the service beside it, latency in an open loop, a slow model; measured from outside."""
