"""Views: how one text becomes several texts, token rows or inputs of the encoder."""
