"""Consumers in a database: where they are kept, and how workers find them without waiting for it on the loop."""
