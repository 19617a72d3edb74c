"""How facts look to people: as a table in a notebook, as bytes and seconds."""
