"""Making an encoder better for a user's own texts, and judging whether it is."""
