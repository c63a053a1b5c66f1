"""The way to a service: its targets, which one is next, and what to do when it fails."""
