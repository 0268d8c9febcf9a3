"""Chat data: records, templates, what of them is learnt; their store, its samples and pairs; prompts for online RL."""
