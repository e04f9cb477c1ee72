"""Pure functions of vectors and labels."""
