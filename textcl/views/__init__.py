"""How one text becomes several."""
