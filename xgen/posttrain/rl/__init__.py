"""Online RL: prompts by number, answers from an engine, verdicts, advantages, rows. No torch on import."""
