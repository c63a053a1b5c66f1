"""Coverage-guided fuzzing of what reads bytes from strangers, and h11 as the oracle of what they mean.

`make fuzz` runs it; see README.md.
"""
