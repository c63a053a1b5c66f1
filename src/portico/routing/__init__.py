"""Which route a request belongs to: patterns, the order among them, and the compiled matcher. No event loop."""
