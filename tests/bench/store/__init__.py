"""What a store costs at scale: writing, looking up, reading a corpus that is stored already, starting."""
