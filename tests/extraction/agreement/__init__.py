"""Whether encoder, sentences and store agree: recipes, canaries, contexts, the rule for sentences."""
