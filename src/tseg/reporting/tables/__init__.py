"""Tables, and the notes below them."""
