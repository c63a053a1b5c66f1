"""What happened: plain records and scalars that know nothing of requests."""
