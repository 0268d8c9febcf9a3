"""Post-training: chat data into losses, answers, rewards, and the trainers of SFT, preferences and online RL."""
