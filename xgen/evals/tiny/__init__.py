"""A planted task that a model of half a million parameters learns in minutes: to say the number that a text hides."""
