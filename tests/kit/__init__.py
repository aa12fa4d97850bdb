"""What tests share: flows and what must come out of them, clients that fail, oracles, records. No test stands here."""
