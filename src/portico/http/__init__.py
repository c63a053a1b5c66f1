"""HTTP's own nouns: headers, bodies, requests, responses, problems. No sockets, no event loop."""
