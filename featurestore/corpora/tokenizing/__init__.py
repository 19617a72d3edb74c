"""Raw text to tokens: by rules, by ICU's dictionaries, or character by character."""
