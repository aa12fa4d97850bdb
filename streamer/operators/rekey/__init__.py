"""Another key for the events: from the source through an internal topic, with their origin and event-time watermarks."""
