"""What a topology becomes: checked and bound to its model, cut into flows, assembled into stages."""
