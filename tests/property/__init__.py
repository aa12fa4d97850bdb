"""Properties: what holds for every input, searched by hypothesis."""
