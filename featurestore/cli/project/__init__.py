"""What a project keeps in featurestore.toml, so that commands need not be told again."""
