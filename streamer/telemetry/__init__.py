"""What the service tells about itself: metrics, the latency ledger and logs."""
