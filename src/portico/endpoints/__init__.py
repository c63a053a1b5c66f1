"""The built-in endpoints: what a route can end in, one file each."""
