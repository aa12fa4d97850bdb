"""What is done to rows: a folder each, with plan, stage, store and kernels as needed; none knows another."""
